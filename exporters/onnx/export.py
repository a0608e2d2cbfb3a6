"""Write the ONNX files of a bundle, then prove them: load, audit the kernels, compare every site."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bitvox.compiler.frontend.model import FloatArray, SpeechModel
from bitvox.compiler.lowering.packed import PackedModel, full_precision
from bitvox.errors import RequestError
from bitvox.exporters.onnx.audit import check_kernels, kernels_reached
from bitvox.exporters.onnx.build import WrittenModel, write_model
from bitvox.exporters.onnx.parity import Parity, measure_parity
from bitvox.exporters.onnx.skeleton import build_skeleton


@dataclass(frozen=True)
class ExportReport:
    """What was found when the written files were run.

    Attributes:
        kernels: Site -> operator that the runtime reached.
        float_sites: Sites that were meant to compute in integers and run in float.
        parity: Difference of every site from the quantised torch model.
    """

    kernels: dict[str, str]
    float_sites: tuple[str, ...]
    parity: Parity


def prove(
    model: SpeechModel, packed: PackedModel, written: WrittenModel, samples: FloatArray, allow_float: bool
) -> ExportReport:
    """Run the written files on one real clip of samples [T] and check every site.

    Raises:
        RequestError: A site meant for integers runs in float (unless allowed), or differs from the torch
            model.
    """
    kernels = kernels_reached(written.model, written.sites)
    in_float = check_kernels(kernels, packed.plan)
    if in_float and not allow_float:
        raise RequestError(
            f"site '{in_float[0]}' runs in float ({kernels[in_float[0]]}), and {len(in_float) - 1} more; "
            "choose --activations static, or accept it with --allow-float"
        )
    parity = measure_parity(model, packed.plan, written.model, written.sites, kernels, samples)
    parity.check()
    return ExportReport(kernels, tuple(in_float), parity)


def export_full_precision(model: SpeechModel, folder: Path) -> Path:
    """Write the float32 model that bundles are compared with; returns its `model.onnx`."""
    folder.mkdir(parents=True, exist_ok=True)
    return write_model(build_skeleton(model), full_precision(model), folder).model
