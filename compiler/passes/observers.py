"""Running the model over the calibration clips and seeing what goes into and comes out of every site."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from bitvox.compiler.frontend.model import Site, SpeechModel
from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.plan import Range, rounded
from bitvox.errors import InputError

Visit = Callable[[Site, Tensor, Tensor], None]

# An interval narrower than this carries no signal: its step would be below what float32 products resolve.
_NARROWEST = 1e-6


@contextmanager
def watching(model: SpeechModel, sites: Sequence[Site], visit: Visit) -> Iterator[None]:
    """Inside the block, `visit(site, input, output)` is called whenever the model runs a site."""

    def hook_of(site: Site) -> Callable[[torch.nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda _module, inputs, output: visit(site, inputs[0], output)

    handles = [model.site_module(site).register_forward_hook(hook_of(site)) for site in sites]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def clip_inputs(context: PassContext, stage: str) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
    """Number and module inputs of each clip, progress told after each; InputError if there is none."""
    if not context.clips:
        raise InputError("audio: no clip to calibrate with; give at least one")
    for number, samples in enumerate(context.clips):
        yield number, context.model.inputs(samples)
        context.progress(stage, number + 1, len(context.clips))


class RangeObserver:
    """Smallest and largest value of a stream of tensors."""

    def __init__(self) -> None:
        self.low = math.inf
        self.high = -math.inf

    def update(self, values: Tensor) -> None:
        """Take in a tensor of any shape."""
        low, high = torch.aminmax(values.detach())
        self.include(float(low), float(high))

    def include(self, low: float, high: float) -> None:
        """Take in an interval; a NaN end stays."""
        self.low = low if math.isnan(low) else min(self.low, low)
        self.high = high if math.isnan(high) else max(self.high, high)

    @property
    def finite(self) -> bool:
        """Whether every value seen was finite; true of an empty stream."""
        return self.low == math.inf or math.isfinite(self.low + self.high)

    def span(self) -> Range:
        """The interval seen, widened to contain zero; [-1, 1] where nothing but zero was seen."""
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        if high - low < _NARROWEST:
            return Range(-1.0, 1.0)
        return Range(rounded(low), rounded(high))


@dataclass(frozen=True)
class FrameSampler:
    """Which output frames of which clip are kept: `frames` in all, evenly spread over clips and over time."""

    frames: int
    clips: int

    def positions(self, clip: int, available: int) -> Tensor:
        """Frame numbers kept of a clip with that many output frames."""
        quota = self.frames * (clip + 1) // self.clips - self.frames * clip // self.clips
        count = min(quota, available)
        return (2 * torch.arange(count) + 1) * available // max(2 * count, 1)


def columns(site: Site, values: Tensor, positions: Tensor) -> Tensor:
    """What the site multiplies its weights with at some output frames: [frames, groups, K].

    `values` is the site's input for one clip: [1, ..., K] of a linear, [1, C, T] of a conv1d.
    """
    if site.conv is None:
        return values.reshape(-1, 1, values.shape[-1])[positions]
    conv, kernel = site.conv, site.shape[2]
    padded = functional.pad(values[0], (conv.padding, conv.padding)) if conv.padding else values[0]
    taps = positions[:, None] * conv.stride + torch.arange(kernel) * conv.dilation
    patches = padded[:, taps].permute(1, 0, 2)
    return patches.reshape(len(positions), conv.groups, -1)


def output_rows(site: Site, values: Tensor) -> Tensor:
    """Output of one clip as [frames, N]: of a linear [1, ..., N], of a conv1d [1, N, T]."""
    return values.reshape(-1, values.shape[-1]) if site.conv is None else values[0].T
