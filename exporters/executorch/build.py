"""Skeleton + packed model -> `model.pte`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bitvox.compiler.lowering.packed import PackedModel, PackedTensor
from bitvox.compiler.passes.plan import SitePlan
from bitvox.exporters.executorch.graph import SiteForm, packed_forms
from bitvox.exporters.executorch.program import PackedConstant, Program
from bitvox.exporters.executorch.session import MODEL_NAME
from bitvox.exporters.executorch.skeleton import shipped_program, sized_program
from bitvox.exporters.onnx.resident import resident_weight


@dataclass(frozen=True)
class WrittenModel:
    """The file, and what it was filled from.

    Attributes:
        model: The file that was written; `program`: what is in it.
        skeleton, forms: What the program was lowered from.
        constants: The packed weights that were put in, by index of the site.
    """

    model: Path
    program: Program
    skeleton: bytes
    forms: tuple[SiteForm, ...]
    constants: Mapping[int, PackedConstant]

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that was written."""
        return (self.model,)

    @property
    def operators(self) -> tuple[str, ...]:
        """Operators and backends that the runtime must have."""
        return self.program.operators


def write_model(skeleton: bytes, packed: PackedModel, folder: Path) -> WrittenModel:
    """Write the packed model into `folder`; the same inputs give the same bytes.

    Args:
        skeleton: From `build_skeleton`.
        packed: Weights of every site, in the order of `SpeechModel.sites`.
        folder: Existing folder.
    """
    return _write(skeleton, packed, folder, shipped_program)


def size_model(skeleton: bytes, packed: PackedModel, folder: Path) -> WrittenModel:
    """Write a file of the size that `write_model` gives it; one of stock kernels does not run."""
    return _write(skeleton, packed, folder, sized_program)


def _write(
    skeleton: bytes,
    packed: PackedModel,
    folder: Path,
    program_of: Callable[[bytes, Sequence[SiteForm]], Program],
) -> WrittenModel:
    forms = packed_forms(packed)
    constants = {
        index: _constant(stored.weight, packed.plan.site(stored.site.name))
        for index, stored in enumerate(packed.sites)
        if isinstance(stored.weight, PackedTensor) and forms[index].is_operator
    }
    program = program_of(skeleton, forms).filled(constants)
    path = folder / MODEL_NAME
    path.write_bytes(program.to_bytes())
    return WrittenModel(path, program, skeleton, forms, constants)


def _constant(weight: PackedTensor, plan: SitePlan) -> PackedConstant:
    packed = resident_weight(weight).tobytes()
    if plan.activations != "static":
        return PackedConstant(packed)
    assert plan.input_range is not None
    # The kernels' codes are signed: the uint8 grid of the plan, moved down by 128.
    return PackedConstant(packed, plan.input_range.scale, plan.input_range.zero_point - 128)
