"""What the ExecuTorch target charges for each decision."""

from __future__ import annotations

import copy

import numpy as np

from bitvox.compiler.frontend.model import Site, SpeechModel
from bitvox.compiler.passes.plan import Activations, Granularity, Kernels
from bitvox.exporters.executorch.graph import float_type
from bitvox.exporters.executorch.program import ALIGNMENT, PackedConstant, placeholder
from bitvox.exporters.executorch.skeleton import shipped_program, usual_forms
from bitvox.exporters.executorch.stock import stored_form
from bitvox.exporters.onnx.resident import aligned, resident_bytes


class ExecutorchCosts:
    """Bytes of a bundle for the ExecuTorch target (a `ByteCosts`).

    A packed weight is a constant of the program, codes and scales of XNNPACK's own are data of the file, and
    nothing else changes with them, so that their size is exact. `corrected` takes in the manifest, what a
    plan with other forms than the usual adds, and all else of a program of stock kernels.
    """

    def __init__(self, model: SpeechModel, skeleton: bytes, kernels: Kernels) -> None:
        self._kernels: Kernels = kernels
        # A program of XNNPACK's own layers holds its weights, so that none is there before a plan is.
        self.fixed = 0 if kernels == "stock" else _around_weights(model, skeleton)

    def corrected(self, missed: int) -> ExecutorchCosts:
        """The same costs with `missed` more bytes for what no plan changes."""
        costs = copy.copy(self)
        costs.fixed += missed
        return costs

    def site(self, site: Site, bits: int | None, granularity: Granularity, activations: Activations) -> int:
        """Bytes of one site's weight; its bias and its instructions are the same for every decision."""
        if self._kernels == "stock":
            bits, activations = stored_form(site, bits, activations)
            if site.tied and bits is not None:
                return aligned(site.weights) + aligned(4 * site.channels)
        if bits is None or activations == "float":
            return _float_bytes(site, self._kernels)
        if self._kernels == "packed":
            return aligned(resident_bytes(site, bits))
        row = site.weights // site.channels
        codes = site.channels * (-(-row // 2) if bits == 4 else row)
        return _segment(codes) + _segment(4 * site.channels)


def _around_weights(model: SpeechModel, skeleton: bytes) -> int:
    """Bytes of the usual program of bitvox's operators without the weights of its sites."""
    forms = usual_forms(model)
    waiting = {
        index: PackedConstant(placeholder(index)) for index, form in enumerate(forms) if form.is_operator
    }
    program = shipped_program(skeleton, forms).filled(waiting)
    in_float = sum(_float_bytes(form.site, "packed") for form in forms if form.weight is not None)
    return len(program.to_bytes()) - ALIGNMENT * len(waiting) - in_float


def _float_bytes(site: Site, kernels: Kernels) -> int:
    return np.dtype(float_type(site, kernels)).itemsize * site.weights


def _segment(size: int) -> int:
    """XNNPACK's constants are segments of the file, which start at multiples of 128 bytes."""
    return -(-size // 128) * 128
