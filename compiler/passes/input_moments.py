"""Second moments of what every site reads, H = E[x x^T], gathered while the clips go by.

The error that rounding a weight row w to w' leaves in the site's output is (w' - w) H (w' - w)^T a frame:
H is the Hessian of the layer-wise problem that GPTQ solves (Frantar et al. 2022, arXiv 2210.17323). Nothing
but sums is kept: no activation outlives its clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional

from bitvox.compiler.frontend.model import Site
from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.observers import clip_inputs, columns
from bitvox.errors import InputError

# Frames of a strided convolution that count, over all clips: neighbours overlap and say little more, and the
# first convolutions see thousands of frames a second.
_FRAMES = 32_768


class InputMoments:
    """H of one input, [groups, K, K]: one for all sites of a share group, which read the same.

    A convolution's K inputs of an output frame are those of `observers.columns`: channels of the group times
    taps.
    """

    def __init__(self, site: Site, clips: int) -> None:
        self._most_frames = max(1, _FRAMES // max(clips, 1))
        self._site = site
        self.groups = 1 if site.conv is None else site.conv.groups
        self.inputs = site.weights // site.channels
        self._sum = torch.zeros(self._stored_shape())
        self._frames = 0

    @property
    def finite(self) -> bool:
        """Whether every input was."""
        return bool(torch.isfinite(self._sum).all())

    def update(self, values: Tensor) -> None:
        """Take in the site's input for one clip: [1, ..., K] of a linear, [1, C, T] of a conv1d."""
        values = values.detach()
        if self._site.conv is None:
            rows = values.reshape(-1, self.inputs)
            self._sum[0].addmm_(rows.T, rows)
            self._frames += rows.shape[0]
        elif _slides(self._site):
            self._add_lags(values[0])
        else:
            self._add_columns(values)

    def hessian(self, group: int) -> Tensor:
        """H of one group of channels, [K, K]."""
        if self._frames == 0:
            raise ValueError(f"site {self._site.name}: no input seen")
        mean = self._sum[group] / self._frames
        return _from_lags(mean) if _slides(self._site) else mean

    def _stored_shape(self) -> tuple[int, ...]:
        if not _slides(self._site):
            return (self.groups, self.inputs, self.inputs)
        _, channels, kernel = self._site.shape
        return (self.groups, kernel, channels, channels)

    def _add_columns(self, values: Tensor) -> None:
        conv = self._site.conv
        assert conv is not None
        reach = (self._site.shape[2] - 1) * conv.dilation + 1
        frames = (values.shape[2] + 2 * conv.padding - reach) // conv.stride + 1
        count = min(frames, self._most_frames)
        positions = (2 * torch.arange(count) + 1) * frames // (2 * count)
        patches = columns(self._site, values, positions).transpose(0, 1)
        self._sum.baddbmm_(patches.transpose(1, 2), patches)
        self._frames += count

    def _add_lags(self, values: Tensor) -> None:
        conv = self._site.conv
        assert conv is not None
        kernel = self._site.shape[2]
        padded = functional.pad(values, (conv.padding, conv.padding))
        parts = padded.reshape(self.groups, -1, padded.shape[1])
        length = padded.shape[1]
        for lag in range(min(kernel, length)):
            self._sum[:, lag].baddbmm_(parts[:, :, : length - lag], parts[:, :, lag:].transpose(1, 2))
        # A tap sees every sample of the padded clip but those that the other taps' windows end before.
        self._frames += length


def _slides(site: Site) -> bool:
    """Whether every tap of a convolution sees the same signal, a frame later: H is block Toeplitz then.

    Kept as E[x_t x_{t+lag}^T] per lag it is a convolution's kernel times smaller: a positional convolution of
    128 taps would take gigabytes. What the ends of a clip add beyond the windows is counted in.
    """
    return site.conv is not None and site.conv.stride == 1 and site.conv.dilation == 1


def _from_lags(lags: Tensor) -> Tensor:
    """H [C * taps, C * taps], laid out as a weight is, from E[x_t x_{t+lag}^T] per lag, [taps, C, C]."""
    taps, channels = lags.shape[0], lags.shape[1]
    first, second = torch.arange(taps)[:, None], torch.arange(taps)[None]
    distance = second - first
    forward = lags[distance.clamp(min=0)]
    backward = lags[(-distance).clamp(min=0)].transpose(2, 3)
    blocks = torch.where((distance >= 0)[:, :, None, None], forward, backward)
    return blocks.permute(2, 0, 3, 1).reshape(channels * taps, channels * taps)


class _Reached(Exception):
    """The last site that was wanted has its input."""


@torch.inference_mode()
def gather_moments(
    context: PassContext, groups: Sequence[tuple[Site, ...]], stage: str
) -> dict[str, InputMoments]:
    """H of what each of these share groups reads in the model at full precision, by name of the group.

    The model runs as far as the last of the groups.

    Raises:
        InputError: No clips, or an activation that is not finite.
    """
    firsts = [group[0] for group in groups]
    found = {site.share_group: InputMoments(site, len(context.clips)) for site in firsts}
    with _reading(context.model.module, firsts, found):
        for _, inputs in clip_inputs(context, stage):
            try:
                context.model.module(*inputs)
            except _Reached:
                continue
    for site in firsts:
        if not found[site.share_group].finite:
            raise InputError(f"site {site.name}: its inputs are not finite on the calibration clips")
    return found


@contextmanager
def _reading(
    module: torch.nn.Module, sites: Sequence[Site], found: dict[str, InputMoments]
) -> Iterator[None]:
    def hook_of(site: Site) -> Callable[[torch.nn.Module, tuple[Tensor, ...]], None]:
        def read(_module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found[site.share_group].update(inputs[0])
            if site is sites[-1]:
                raise _Reached

        return read

    handles = [module.get_submodule(site.name).register_forward_pre_hook(hook_of(site)) for site in sites]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
