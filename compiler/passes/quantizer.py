"""The uniform quantiser: the numerical definition of every code, scale and rounded activation in the product.

Weights: symmetric signed grid [-2^(b-1), 2^(b-1) - 1] with step = clip * max|W| / (2^(b-1) - 0.5), so that
    the largest weight lies half a step inside the edge of the grid (arXiv 2307.12659 and its code).
    Activations: 8-bit asymmetric, bit for bit what ONNX QuantizeLinear, DequantizeLinear and
    DynamicQuantizeLinear define; with packed kernels, dynamic ones are symmetric, a scale per row of a linear
    and per run of frames of a convolution. All rounding is half to even.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from bitvox.compiler.frontend.model import ConvGeometry, Site, SpeechModel
from bitvox.compiler.passes.plan import Granularity, Kernels, QuantPlan, Range, SitePlan

_HALF = torch.finfo(torch.float16)
_SMALLEST_HALF = 2.0**-24
_INT32 = torch.iinfo(torch.int32)
_SMALLEST_MAGNITUDE = 2.0**-100

RUN_FRAMES = 128
"""Output frames of a packed convolution that share an activation scale (NBIT_CONV_FRAMES)."""


@dataclass(frozen=True, eq=False)
class RoundedSite:
    """What a site stores in the place of its weight and bias.

    Attributes:
        codes: Signed codes of the weight [N, ...], int8.
        steps: Their steps, float32 but exact in float16: [1] or [N].
        bias: The bias [N] that goes with them, if the site has one.
    """

    codes: Tensor
    steps: Tensor
    bias: Tensor | None

    def weight(self) -> Tensor:
        """The weight that the codes stand for, float32 [N, ...]."""
        return self.codes.float() * _per_row(self.steps, self.codes)


def weight_steps(weight: Tensor, bits: int, granularity: Granularity, clip: float = 1.0) -> Tensor:
    """Steps of a weight [N, ...], float32 but exact in float16: [1] per tensor, [N] per output channel."""
    return steps_for(largest_weights(weight, granularity), bits, clip)


def largest_weights(weight: Tensor, granularity: Granularity) -> Tensor:
    """Largest |W| of a weight [N, ...]: [1] per tensor, [N] per output channel."""
    return weight.reshape(1 if granularity == "tensor" else weight.shape[0], -1).abs().amax(dim=1).float()


def steps_for(largest: Tensor, bits: int, clip: float = 1.0) -> Tensor:
    """Steps clip * largest / (2^(bits-1) - 0.5), as they are stored."""
    return stored_steps(clip * largest / (2.0 ** (bits - 1) - 0.5))


def stored_steps(step: Tensor) -> Tensor:
    """Steps rounded to float16, in which they are stored; still float32.

    Rounded before any code is computed, so that codes are right for the stored scale. Where float16 loses
    precision (below its smallest normal number, 2^-14) the step is rounded up to a multiple of 2^-24, so that
    no weight is clipped by it; a channel of zeros gets 2^-14, any step being right for it; a step above
    float16's largest number (weights above 65504 * (2^(bits-1) - 0.5)) becomes that number, and the weights
    saturate.
    """
    fine = torch.ceil(step / _SMALLEST_HALF) * _SMALLEST_HALF
    step = torch.where(step < _HALF.tiny, fine, step)
    step = torch.where(step == 0, torch.full_like(step, _HALF.tiny), step)
    return step.clamp(max=_HALF.max).half().float()


def quantise_weight(weight: Tensor, steps: Tensor, bits: int) -> Tensor:
    """Codes of a weight, float32 whole numbers in [-2^(b-1), 2^(b-1) - 1]; steps are [1] or [N]."""
    top = 2 ** (bits - 1)
    return (weight / _per_row(steps, weight)).round_().clamp_(-top, top - 1)


def weight_codes(
    weight: npt.NDArray[np.float32], bits: int, granularity: Granularity, clip: float = 1.0
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Codes (int8, of the weight's shape) and scales (float32 [1] or [N], exact in float16) of a weight."""
    source = torch.from_numpy(np.ascontiguousarray(weight, dtype=np.float32))
    steps = weight_steps(source, bits, granularity, clip)
    return quantise_weight(source, steps, bits).to(torch.int8).numpy(), steps.numpy()


def dequantised_weight(weight: Tensor, plan: SitePlan) -> Tensor:
    """The float32 weight that a plan stores: codes times scales, or float16 at full precision."""
    if plan.bits is None:
        return weight.half().float()
    steps = weight_steps(weight, plan.bits, plan.granularity, plan.clip)
    return restored_weight(weight, steps, plan.bits)


def restored_weight(weight: Tensor, steps: Tensor, bits: int) -> Tensor:
    """A weight [N, ...] after rounding to codes and back."""
    return quantise_weight(weight, steps, bits).mul_(_per_row(steps, weight))


def _per_row(steps: Tensor, weight: Tensor) -> Tensor:
    return steps.reshape(-1, *[1] * (weight.dim() - 1))


def fake_quantise_activation(values: Tensor, span: Range) -> Tensor:
    """Values after ONNX QuantizeLinear and DequantizeLinear (uint8) with the grid of `span`."""
    return _fake_quantise(values, torch.tensor(span.scale, dtype=torch.float32), span.zero_point)


def fake_quantise_dynamic(values: Tensor) -> Tensor:
    """Values after ONNX DynamicQuantizeLinear and DequantizeLinear: the range of this very tensor."""
    low = values.min().clamp(max=0.0)
    high = values.max().clamp(min=0.0)
    scale = (high - low) / 255.0
    if scale == 0:
        return torch.zeros_like(values)
    return _fake_quantise(values, scale, float((-low / scale).round().clamp(0, 255)))


def fake_quantise_blocks(values: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Values after a symmetric signed 8-bit grid whose scale, max|x| / 127, is shared along `dim`.

    Bit for bit what the packed kernels do with activations that were not calibrated; a block whose largest
    magnitude is below 2^-100 is zero.
    """
    largest = values.abs().amax(dim=dim, keepdim=True)
    # A number over a tensor would be its reciprocal times the number: rounded twice, the kernels round once.
    factor = torch.full_like(largest, 127.0) / largest
    factor = torch.where(largest < _SMALLEST_MAGNITUDE, 0.0, factor)
    return (values * factor).round_().mul_(largest / 127.0)


def _fake_quantise(values: Tensor, scale: Tensor, zero_point: float) -> Tensor:
    codes = (values / scale).round_().add_(zero_point).clamp_(0, 255)
    return codes.sub_(zero_point).mul_(scale)


class QuantisedSite(torch.nn.Module):
    """A site as its plan makes it compute: dequantised weights, rounded activations.

    Weights are rounded to nearest unless `rounded` gives what is stored.

    A static conv1d with stock kernels also rounds its output, after the bias, and keeps its bias as int32
    multiples of input scale times weight scale: that is what ONNX QLinearConv computes. Everything else keeps
    a float32 bias.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self,
        module: torch.nn.Linear | torch.nn.Conv1d,
        site: Site,
        plan: SitePlan,
        kernels: Kernels = "stock",
        rounded: RoundedSite | None = None,
    ) -> None:
        super().__init__()
        self.site = site
        self.plan = plan
        self.kernels = kernels
        bias = module.bias if rounded is None else rounded.bias
        weight = module.weight.detach().float()
        steps = None if plan.bits is None else weight_steps(weight, plan.bits, plan.granularity, plan.clip)
        if rounded is not None:
            steps = rounded.steps
        stored = dequantised_weight(weight, plan) if rounded is None else rounded.weight()
        self.register_buffer("weight", stored)
        self.register_buffer("bias", None if bias is None else self._stored_bias(bias.detach(), steps))

    def forward(self, values: Tensor) -> Tensor:
        """Output of the site for an input [B, ..., K] (linear) or [B, C, T] (conv1d)."""
        packed = self.kernels == "packed"
        if self.plan.activations == "static":
            assert self.plan.input_range is not None
            values = fake_quantise_activation(values, self.plan.input_range)
        elif self.plan.activations == "dynamic" and packed:
            if self.site.conv is not None:
                return self._convolve_in_runs(values, self.site.conv)
            values = fake_quantise_blocks(values, dim=-1)
        elif self.plan.activations == "dynamic":
            values = fake_quantise_dynamic(values)
        if self.site.conv is None:
            return functional.linear(values, self.weight, self.bias)
        shape = self.site.conv
        result = functional.conv1d(
            values, self.weight, self.bias, shape.stride, shape.padding, shape.dilation, shape.groups
        )
        if self.plan.activations == "static" and not packed:
            assert self.plan.output_range is not None
            result = fake_quantise_activation(result, self.plan.output_range)
        return result

    def lookup(self, tokens: Tensor) -> Tensor:
        """Rows [..., K] of a tied site's weight."""
        return functional.embedding(tokens, self.weight)

    def _convolve_in_runs(self, values: Tensor, shape: ConvGeometry) -> Tensor:
        """A dynamic conv1d of the packed kernels: each run of output frames rounds its own input anew."""
        padded = functional.pad(values, (shape.padding, shape.padding))
        reach = (self.weight.shape[2] - 1) * shape.dilation + 1
        frames = (padded.shape[2] - reach) // shape.stride + 1
        runs = []
        for first in range(0, frames, RUN_FRAMES):
            last = min(first + RUN_FRAMES, frames) - 1
            window = padded[:, :, first * shape.stride : last * shape.stride + reach]
            window = fake_quantise_blocks(window, dim=(1, 2))
            convolved = functional.conv1d(
                window, self.weight, self.bias, shape.stride, 0, shape.dilation, shape.groups
            )
            runs.append(convolved)
        return torch.cat(runs, dim=2)

    def _stored_bias(self, bias: Tensor, steps: Tensor | None) -> Tensor:
        plan = self.plan
        if self.site.operator == "linear" or plan.activations != "static" or self.kernels == "packed":
            return bias.float()
        if steps is None:
            return bias.float()
        assert plan.input_range is not None
        codes = conv_bias_codes(bias, plan.input_range, steps)
        return codes.float() * conv_bias_steps(plan.input_range, steps)


def conv_bias_steps(span: Range, steps: Tensor) -> Tensor:
    """Unit of a QLinearConv bias: input scale times weight scale, float32, [1] or [N]."""
    return torch.tensor(span.scale, dtype=torch.float32) * steps


def conv_bias_codes(bias: Tensor, span: Range, steps: Tensor) -> Tensor:
    """Bias [N] of a QLinearConv in units of `conv_bias_steps`: float64 whole numbers that int32 holds."""
    units = bias.double() / conv_bias_steps(span, steps).double()
    return units.round().clamp(_INT32.min, _INT32.max)


def quantise_module(
    model: SpeechModel, plan: QuantPlan, rounded: Mapping[str, RoundedSite] | None = None
) -> torch.nn.Module:
    """The quantised torch model: a copy of the prepared module with every site replaced by a `QuantisedSite`.

    Sites that `rounded` does not name have their weights rounded to nearest. The model computes in float32
    what the exported file computes in integers; exporters are checked against it.
    """
    module = copy.deepcopy(model.module)
    for site in model.sites:
        original = module.get_submodule(site.name)
        assert isinstance(original, torch.nn.Linear | torch.nn.Conv1d)
        entry, stored = plan.site(site.name), (rounded or {}).get(site.name)
        module.set_submodule(site.name, QuantisedSite(original, site, entry, plan.kernels, stored))
    return module.eval()
