"""`--kernels stock`: sites as XNNPACK's own quantised layers, for a runtime without bitvox's operators.

XNNPACK stores linear weights at 4 or 8 bits and convolution weights at 8: a width that it lacks is stored in
the next wider one, and then is that width: the bits are paid for. A linear rounds its input row by row when
it runs, whatever was asked for, because a calibrated one would have to round its output too; a convolution
has calibrated ranges for both. A tied weight is stored at 8 bits and multiplied in float. What else is
meant to be multiplied in float is kept at full precision.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.ao.quantization.fx._decomposed  # registers torch.ops.quantized_decomposed
from torch import Tensor

from bitvox.compiler.frontend.model import Site, SpeechModel
from bitvox.compiler.lowering.packed import PackedTensor
from bitvox.compiler.passes.plan import Activations, QuantPlan, Range, SitePlan
from bitvox.exporters.executorch.tied import tied_product, tied_rows

_ops = torch.ops.quantized_decomposed

LINEAR_WIDTHS = (4, 8)


def stored_form(site: Site, bits: int | None, activations: Activations) -> tuple[int | None, Activations]:
    """Width and activation mode that a decision becomes."""
    if site.tied and bits is not None:
        return 8, "float"
    if bits is None or activations == "float":
        return None, "float"
    if site.operator == "conv1d":
        return 8, "static"
    return next(width for width in LINEAR_WIDTHS if width >= bits), "dynamic"


def settle(model: SpeechModel, plan: QuantPlan) -> QuantPlan:
    """The plan with every width as it will be stored; takes the same bytes."""
    sites = []
    for site, entry in zip(model.sites, plan.sites, strict=True):
        bits, activations = stored_form(site, entry.bits, entry.activations)
        reason = entry.reason
        if bits is not None and bits != entry.bits:
            reason += f"; {entry.bits} bits stored as {bits}, XNNPACK's next"
        sites.append(entry.replace(bits=bits, activations=activations, reason=reason))
    return plan.replace(sites=tuple(sites))


class StockSite(torch.nn.Module):
    """A site in the quantise and dequantise operators that XNNPACK recognises, and its meaning in torch."""

    codes: Tensor
    scale: Tensor
    zero: Tensor
    bias: Tensor | None

    def __init__(self, site: Site, weight: PackedTensor, bias: np.ndarray | None, plan: SitePlan) -> None:
        super().__init__()
        self.site, self.plan, self.bits = site, plan, weight.bits
        scale = np.broadcast_to(weight.scale.astype(np.float32), (site.channels,))
        self.register_buffer("codes", torch.from_numpy(weight.signed_codes()))
        self.register_buffer("scale", torch.from_numpy(scale.copy()))
        self.register_buffer("zero", torch.zeros(site.channels, dtype=torch.int64))
        self.register_buffer("bias", None if bias is None else torch.from_numpy(self._on_grid(bias)))

    def _on_grid(self, bias: np.ndarray) -> np.ndarray:
        """A convolution's bias in whole products of an input's step and a weight's, as XNNPACK adds it."""
        if self.plan.input_range is None or self.site.conv is None:
            return bias.copy()
        step = np.float32(self.plan.input_range.scale) * self.scale.numpy()
        return np.rint(bias / step) * step

    def forward(self, x: Tensor) -> Tensor:
        """Output of the site for an input [B, ..., K] (linear) or [B, C, T] (conv1d)."""
        if self.site.tied:
            return tied_product(x, self.codes, self.scale)
        top = 1 << (self.bits - 1)
        weight = _ops.dequantize_per_channel(self.codes, self.scale, self.zero, 0, -top, top - 1, torch.int8)
        if self.site.conv is None:
            # XNNPACK keeps images channels-last and copies them back between quantising and the product, and
            # then knows the product no more: their rows are laid out before.
            rows = x.flatten(0, -2) if x.dim() > 3 else x
            y = torch.nn.functional.linear(_through_rows(rows), weight, self.bias)
            return y if x.dim() <= 3 else y.unflatten(0, x.shape[:-1])
        assert self.plan.input_range is not None and self.plan.output_range is not None
        shape = self.site.conv
        x = _through_range(x, self.plan.input_range)
        y = torch.nn.functional.conv1d(
            x, weight, self.bias, shape.stride, shape.padding, shape.dilation, shape.groups
        )
        return _through_range(y, self.plan.output_range)

    def lookup(self, tokens: Tensor) -> Tensor:
        """Rows [..., K] of a tied site's weight."""
        return tied_rows(tokens, self.codes, self.scale)


def _through_rows(x: Tensor) -> Tensor:
    scale, zero = _ops.choose_qparams_per_token_asymmetric(x, torch.int8)
    codes = _ops.quantize_per_token(x, scale, zero, -128, 127, torch.int8)
    return _ops.dequantize_per_token(codes, scale, zero, -128, 127, torch.int8, torch.float32)


def _through_range(x: Tensor, span: Range) -> Tensor:
    # XNNPACK's codes are signed: the uint8 grid of the plan, moved down by 128.
    grid = (span.scale, span.zero_point - 128, -128, 127, torch.int8)
    return _ops.dequantize_per_tensor(_ops.quantize_per_tensor(x, *grid), *grid)
