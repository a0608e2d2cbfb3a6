"""The ExecuTorch target, as `bitvox.exporters.targets` asks for it: write the program, then prove it.

Proving is to load it, to audit what runs each site, and to compare every site.
"""

from __future__ import annotations

from pathlib import Path

from bitvox.compiler.frontend.model import FloatArray, SpeechModel
from bitvox.compiler.lowering.packed import PackedModel, full_precision
from bitvox.compiler.passes.plan import Kernels, QuantPlan, Storage
from bitvox.errors import RequestError

# First: it says in one line that ExecuTorch is missing, and imports its talkative compiler in silence.
from bitvox.exporters.executorch import toolchain  # noqa: F401 # isort: skip
from bitvox.exporters.executorch import stock
from bitvox.exporters.executorch.audit import in_float, kernels_reached, longest_kernel
from bitvox.exporters.executorch.build import WrittenModel, size_model, write_model
from bitvox.exporters.executorch.costs import ExecutorchCosts
from bitvox.exporters.executorch.framing import method_lengths
from bitvox.exporters.executorch.lengths import LENGTH_SECONDS
from bitvox.exporters.executorch.parity import measure_parity
from bitvox.exporters.executorch.skeleton import lowered_skeleton, traced_skeleton
from bitvox.exporters.proof import ExportReport

__all__ = [
    "PACKAGES",
    "SKELETON_BY_KERNELS",
    "build_skeleton",
    "byte_costs",
    "export_full_precision",
    "length_seconds",
    "longest_kernel",
    "prove",
    "settle",
    "size_model",
    "write_model",
]

PACKAGES = ("torch", "executorch", "torchao", "transformers")
SKELETON_BY_KERNELS = True


def length_seconds(model: SpeechModel) -> tuple[int, ...]:
    """Longest clips that the methods of a program take; none where all are read in windows of one length."""
    return LENGTH_SECONDS if len(model.graphs) == 1 and len(method_lengths(model)) > 1 else ()


def build_skeleton(model: SpeechModel, kernels: Kernels) -> bytes:
    """The trace, and what can be lowered before there is a plan: a program of stock kernels holds weights."""
    return lowered_skeleton(model) if kernels == "packed" else traced_skeleton(model)


def byte_costs(model: SpeechModel, skeleton: bytes, storage: Storage, kernels: Kernels) -> ExecutorchCosts:
    """What the target charges in bytes."""
    return ExecutorchCosts(model, skeleton, kernels)


def settle(model: SpeechModel, plan: QuantPlan) -> QuantPlan:
    """The plan with every decision as it will be stored; a weight that is multiplied in float is kept so."""
    if plan.kernels == "stock":
        return stock.settle(model, plan)
    sites = (entry.replace(bits=None) if entry.activations == "float" else entry for entry in plan.sites)
    return plan.replace(sites=tuple(sites))


def prove(
    model: SpeechModel, packed: PackedModel, written: WrittenModel, samples: FloatArray, allow_float: bool
) -> ExportReport:
    """Run the written program on one real clip of samples [T] and check every site.

    Raises:
        RequestError: A site meant for integers runs in float (unless allowed), or differs from the torch
            model.
    """
    kernels = kernels_reached(written.program, written.forms, written.constants)
    floating = in_float(kernels, packed.plan)
    if floating and not allow_float:
        raise RequestError(
            f"site '{floating[0]}' runs in float ({kernels[floating[0]]}), and {len(floating) - 1} more; "
            "accept it with --allow-float"
        )
    parity = measure_parity(model, packed, written, samples)
    parity.check()
    return ExportReport(kernels, tuple(floating), parity)


def export_full_precision(model: SpeechModel, folder: Path) -> Path:
    """Write the float32 model that bundles are compared with; returns its `model.pte`."""
    folder.mkdir(parents=True, exist_ok=True)
    return write_model(traced_skeleton(model), full_precision(model), folder).model
