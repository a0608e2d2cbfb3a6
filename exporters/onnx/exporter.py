"""The ONNX target, as `bitvox.exporters.targets` asks for it: write the files, then prove them.

Proving is to load them, to audit the kernels, and to compare every site.
"""

from __future__ import annotations

from pathlib import Path

from bitvox.compiler.frontend.model import FloatArray, Site, SpeechModel
from bitvox.compiler.lowering.packed import PackedModel, full_precision
from bitvox.compiler.passes.plan import Kernels, QuantPlan
from bitvox.errors import RequestError
from bitvox.exporters.onnx import skeleton
from bitvox.exporters.onnx.audit import check_kernels, kernels_reached
from bitvox.exporters.onnx.build import WrittenModel, write_model
from bitvox.exporters.onnx.costs import OnnxCosts as byte_costs
from bitvox.exporters.onnx.parity import measure_parity
from bitvox.exporters.onnx.standard import settle
from bitvox.exporters.proof import ExportReport
from bitvox.runtime_kernels import isa

__all__ = [
    "PACKAGES",
    "SKELETON_BY_KERNELS",
    "build_skeleton",
    "byte_costs",
    "export_full_precision",
    "longest_kernel",
    "prove",
    "settle",
    "size_model",
    "write_model",
]

PACKAGES = ("torch", "onnxscript", "transformers")
SKELETON_BY_KERNELS = False


def length_seconds(model: SpeechModel) -> tuple[int, ...]:
    """None: a graph takes a clip of any length."""
    return ()


size_model = write_model


def build_skeleton(model: SpeechModel, kernels: Kernels) -> bytes:
    """The traced graphs as ONNX, the same for all kernels."""
    return skeleton.build_skeleton(model)


def prove(
    model: SpeechModel, packed: PackedModel, written: WrittenModel, samples: FloatArray, allow_float: bool
) -> ExportReport:
    """Run the written files on one real clip of samples [T] and check every site.

    Raises:
        RequestError: A site meant for integers runs in float (unless allowed), or differs from the torch
            model.
    """
    kernels: dict[str, str] = {}
    for graph in written.graphs:
        kernels |= kernels_reached(graph.file, graph.sites)
    in_float = check_kernels(kernels, packed.plan)
    if in_float and not allow_float:
        raise RequestError(
            f"site '{in_float[0]}' runs in float ({kernels[in_float[0]]}), and {len(in_float) - 1} more; "
            "choose --activations static, or accept it with --allow-float"
        )
    parity = measure_parity(model, packed, written, kernels, samples)
    parity.check()
    return ExportReport(kernels, tuple(in_float), parity)


def export_full_precision(model: SpeechModel, folder: Path) -> Path:
    """Write the float32 model that bundles are compared with; returns its first file."""
    folder.mkdir(parents=True, exist_ok=True)
    return write_model(skeleton.build_skeleton(model), full_precision(model), folder).files[0]


def longest_kernel(site: Site, plan: QuantPlan) -> str:
    """The longest name that the audit can report for a site as the plan has it."""
    entry = plan.site(site.name)
    if entry.bits is None or entry.activations == "float":
        return "MatMulNBits" if site.operator == "linear" else "Conv"
    if plan.kernels == "packed":
        kernel = "NBitLinear" if site.operator == "linear" else "NBitConv1d"
        return f"{kernel} {isa()}"
    return "DynamicQuantizeMatMul" if site.operator == "linear" else "QLinearConv"
