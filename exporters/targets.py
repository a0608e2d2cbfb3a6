"""The table of targets: the one place that says which runtimes bitvox writes for, and what each must provide.

A target is a package with two modules. `exporter` writes and proves model files and may need torch. `session`
runs them on the device's terms, without torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from bitvox.compiler.frontend.session import Session
from bitvox.errors import InputError

if TYPE_CHECKING:
    from bitvox.compiler.frontend.model import Site, SpeechModel
    from bitvox.compiler.lowering.packed import PackedModel
    from bitvox.compiler.passes.plan import Activations, Granularity, Kernels, QuantPlan, Storage
    from bitvox.exporters.proof import ExportReport

FloatArray = npt.NDArray[np.float32]

TARGETS = {"onnx": "bitvox.exporters.onnx", "executorch": "bitvox.exporters.executorch"}

# ExecuTorch's own kernels store weights at 4 and 8 bits only.
USUAL_KERNELS: dict[str, Kernels] = {"onnx": "stock", "executorch": "packed"}

# What a site at full precision is stored as.
FULL_PRECISION = {"onnx": "float16", "executorch": "float32"}


class TargetCosts(Protocol):
    """The `ByteCosts` of a target, which learn from a file what no plan changes."""

    @property
    def fixed(self) -> int:
        """Bytes of everything that no plan changes."""
        ...

    def site(self, site: Site, bits: int | None, granularity: Granularity, activations: Activations) -> int:
        """Bytes of one site."""
        ...

    def corrected(self, missed: int) -> TargetCosts:
        """The same costs with `missed` more fixed bytes."""
        ...


class WrittenModel(Protocol):
    """The model files of a bundle, written into one folder."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that was written."""
        ...

    @property
    def operators(self) -> tuple[str, ...]:
        """Operators that the runtime must have, `domain:Name`."""
        ...


class Exporter(Protocol):
    """Module `exporter` of a target."""

    PACKAGES: tuple[str, ...]
    """Packages whose versions decide what a skeleton holds."""

    SKELETON_BY_KERNELS: bool
    """Whether kernels decide it too."""

    def length_seconds(self, model: SpeechModel) -> tuple[int, ...]:
        """Longest clips that methods of a file take in one piece; none where one method takes any clip."""
        ...

    def build_skeleton(self, model: SpeechModel, kernels: Kernels) -> bytes:
        """The traced model without its sites' weights: made once for a model and kept between runs.

        One that was made for other kernels serves too, where more is done anew.
        """
        ...

    def byte_costs(
        self, model: SpeechModel, skeleton: bytes, storage: Storage, kernels: Kernels
    ) -> TargetCosts:
        """What the target charges in bytes."""
        ...

    def settle(self, model: SpeechModel, plan: QuantPlan) -> QuantPlan:
        """The plan with every decision as it will be stored; takes the same bytes."""
        ...

    def write_model(self, skeleton: bytes, packed: PackedModel, folder: Path) -> WrittenModel:
        """Write the model files into an existing folder; the same inputs give the same bytes."""
        ...

    def size_model(self, skeleton: bytes, packed: PackedModel, folder: Path) -> WrittenModel:
        """Write files of the sizes that `write_model` gives them, which need not run."""
        ...

    def prove(
        self,
        model: SpeechModel,
        packed: PackedModel,
        written: WrittenModel,
        samples: FloatArray,
        allow_float: bool,
    ) -> ExportReport:
        """Run the written files on samples [T] and check every site; RequestError where one fails."""
        ...

    def longest_kernel(self, site: Site, plan: QuantPlan) -> str:
        """The longest name that the audit can report for a site as the plan has it."""
        ...

    def export_full_precision(self, model: SpeechModel, folder: Path) -> Path:
        """Write the float32 model that bundles are compared with; returns its first model file."""
        ...


class Runtime(Protocol):
    """Module `session` of a target."""

    PACKAGES: tuple[str, ...]
    """Packages that run the files."""

    def require_kernels(self, kernels: Kernels) -> None:
        """Nothing where the runtime here has those kernels; InputError that says how to get them, else."""
        ...

    def open_session(self, folder: Path, num_threads: int) -> Session:
        """Load the model in a folder; InputError when the runtime here does not take it."""
        ...

    def missing_operators(self, operators: Iterable[str]) -> list[str]:
        """Those of the operators that no runtime here has."""
        ...


def exporter(target: str) -> Exporter:
    """What writes model files for a target of the table."""
    module: Exporter = importlib.import_module(f"{TARGETS[target]}.exporter")
    return module


def runtime(target: str, origin: Path) -> Runtime:
    """What runs model files for a target; `origin` names the bundle in the InputError for an unknown one."""
    if target not in TARGETS:
        raise InputError(f"{origin}: made for target {target!r}, this bitvox runs {', '.join(TARGETS)}")
    module: Runtime = importlib.import_module(f"{TARGETS[target]}.session")
    return module
