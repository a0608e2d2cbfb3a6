"""Second moments of what every site reads, H = E[x x^T], gathered while the clips go by.

The error that rounding a weight row w to w' leaves in the site's output is (w' - w) H (w' - w)^T a frame:
H is the Hessian of the layer-wise problem that GPTQ solves (Frantar et al. 2022, arXiv 2210.17323). Nothing
but sums is kept: no activation outlives its clip.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from safetensors.torch import load, save
from torch import Tensor
from torch.nn import functional

from bitvox.compiler.frontend.model import ConvGeometry, Site
from bitvox.compiler.passes.base import ByteStore, PassContext, clips_digest
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
        products, frames = _products(self._site, values, values, self._most_frames)
        self._sum += products
        self._frames += frames

    def hessian(self, group: int) -> Tensor:
        """H of one group of channels, [K, K]."""
        if self._frames == 0:
            raise ValueError(f"site {self._site.name}: no input seen")
        mean = self._sum[group] / self._frames
        return _from_lags(mean, mean) if _slides(self._site) else mean

    def mixed(self, generic: InputMoments, share: float) -> InputMoments:
        """(1 - share) H of the other + share H of this one, of the same site."""
        found = InputMoments(self._site, 1)
        found._sum = (1 - share) * generic.mean() + share * self.mean()
        found._frames = 1
        return found

    def mean(self) -> Tensor:
        """What H is made of, one number a pair of inputs (and lag), to be kept."""
        return self._sum / self._frames

    @classmethod
    def of_mean(cls, site: Site, mean: Tensor) -> InputMoments:
        """The moments of a site whose `mean` was kept."""
        found = cls(site, 1)
        found._sum, found._frames = mean, 1
        return found

    def of_groups(self, numbers: Tensor) -> InputMoments:
        """The same of some groups of channels alone."""
        part = copy.copy(self)
        part._sum, part.groups = self._sum[numbers], len(numbers)
        return part

    def _stored_shape(self) -> tuple[int, ...]:
        if not _slides(self._site):
            return (self.groups, self.inputs, self.inputs)
        _, channels, kernel = self._site.shape
        return (self.groups, kernel, channels, channels)


class DriftMoments:
    """How an input's drift d from another input x goes with it: E[d x^T], per group of channels."""

    def __init__(self, site: Site, clips: int) -> None:
        self._site, self._most_frames = site, max(1, _FRAMES // max(clips, 1))
        self._forward = self._backward = torch.zeros(())
        self._frames = 0

    def update(self, drift: Tensor, values: Tensor) -> None:
        """Take in one clip, both shaped as `InputMoments.update` takes inputs."""
        drift, values = drift.detach(), values.detach()
        products, frames = _products(self._site, drift, values, self._most_frames)
        self._forward = self._forward + products
        if _slides(self._site):
            self._backward = self._backward + _products(self._site, values, drift, self._most_frames)[0]
        self._frames += frames

    def mixed(self, generic: DriftMoments, share: float) -> DriftMoments:
        """(1 - share) of the other + share of this one, of the same site."""
        found = DriftMoments(self._site, 1)
        pairs = ((one._forward / one._frames, one._backward / one._frames) for one in (generic, self))
        theirs, ours = pairs
        found._forward = (1 - share) * theirs[0] + share * ours[0]
        found._backward = (1 - share) * theirs[1] + share * ours[1]
        found._frames = 1
        return found

    def matrix(self, group: int) -> Tensor:
        """E[d x^T] of one group of channels, [K, K]."""
        forward = self._forward[group] / self._frames
        if not _slides(self._site):
            return forward
        return _from_lags(forward, self._backward[group] / self._frames)


def _products(site: Site, first: Tensor, second: Tensor, most_frames: int) -> tuple[Tensor, int]:
    """Sum of u v^T over the frames of a clip, u and v what the site reads of `first` and `second`.

    [groups, K, K]; of a convolution that slides, per lag: u_t v_{t+lag}^T, [groups, taps, C, C].
    """
    conv = site.conv
    if conv is None:
        rows, others = (one.reshape(-1, one.shape[-1]) for one in (first, second))
        return (rows.T @ others)[None], rows.shape[0]
    if _slides(site):
        return _lagged_products(site, conv, first[0], second[0])
    reach = (site.shape[2] - 1) * conv.dilation + 1
    frames = (first.shape[2] + 2 * conv.padding - reach) // conv.stride + 1
    count = min(frames, most_frames)
    positions = (2 * torch.arange(count) + 1) * frames // (2 * count)
    patches, others = (columns(site, one, positions).transpose(0, 1) for one in (first, second))
    return patches.transpose(1, 2) @ others, count


def _lagged_products(site: Site, conv: ConvGeometry, first: Tensor, second: Tensor) -> tuple[Tensor, int]:
    padded = [functional.pad(one, (conv.padding, conv.padding)) for one in (first, second)]
    length = padded[0].shape[1]
    ours, theirs = (one.reshape(conv.groups, -1, length) for one in padded)
    found = torch.zeros((conv.groups, site.shape[2], ours.shape[1], ours.shape[1]))
    for lag in range(min(site.shape[2], length)):
        found[:, lag] = ours[:, :, : length - lag] @ theirs[:, :, lag:].transpose(1, 2)
    # A tap sees every sample of the padded clip but those that the other taps' windows end before.
    return found, length


def _slides(site: Site) -> bool:
    """Whether every tap of a convolution sees the same signal, a frame later: H is block Toeplitz then.

    Kept as E[x_t x_{t+lag}^T] per lag it is a convolution's kernel times smaller: a positional convolution of
    128 taps would take gigabytes. What the ends of a clip add beyond the windows is counted in.
    """
    return site.conv is not None and site.conv.stride == 1 and site.conv.dilation == 1


def _from_lags(ahead: Tensor, behind: Tensor) -> Tensor:
    """E[u v^T] [C * taps, C * taps], laid out as a weight is, from products per lag, [taps, C, C].

    `ahead` has E[u_t v_{t+lag}^T] and `behind` E[v_t u_{t+lag}^T].
    """
    taps, channels = ahead.shape[0], ahead.shape[1]
    first, second = torch.arange(taps)[:, None], torch.arange(taps)[None]
    distance = second - first
    forward = ahead[distance.clamp(min=0)]
    backward = behind[(-distance).clamp(min=0)].transpose(2, 3)
    blocks = torch.where((distance >= 0)[:, :, None, None], forward, backward)
    return blocks.permute(2, 0, 3, 1).reshape(channels * taps, channels * taps)


class _Reached(Exception):
    """The last site that was wanted has its input."""


def gather_moments(
    context: PassContext, groups: Sequence[tuple[Site, ...]], stage: str
) -> dict[str, InputMoments]:
    """H of what each of these share groups reads in the model at full precision, by name of the group.

    The model runs as far as the last of the groups. With generic clips H is (1 - share) H_generic + share
    H_user; H_generic is found once and kept.

    Raises:
        InputError: No clips, or an activation that is not finite.
    """
    generic = context.generic
    own = _seen(context, groups, stage)
    if generic is None:
        return own
    others = _generic_moments(context.of_generic(), generic.store, groups)
    return {name: moments.mixed(others[name], generic.share) for name, moments in own.items()}


def _generic_moments(
    context: PassContext, store: ByteStore | None, groups: Sequence[tuple[Site, ...]]
) -> dict[str, InputMoments]:
    """H by name of the share group, from the store where it is there."""
    base = clips_digest(context)
    keys = {
        group[0].share_group: hashlib.sha256(f"{base} H {group[0].name}".encode()).hexdigest()
        for group in groups
    }
    found = {}
    for group in groups:
        kept = store.get_bytes(keys[group[0].share_group]) if store is not None else None
        if kept is not None:
            found[group[0].share_group] = InputMoments.of_mean(group[0], load(kept)["mean"])
    missing = [group for group in groups if group[0].share_group not in found]
    if missing:
        fresh = _seen(context, missing, "measure generic inputs")
        found.update(fresh)
        if store is not None:
            for name, moments in fresh.items():
                store.put_bytes(keys[name], save({"mean": moments.mean()}))
    return found


@torch.inference_mode()
def _seen(context: PassContext, groups: Sequence[tuple[Site, ...]], stage: str) -> dict[str, InputMoments]:
    """H of what the groups read in these clips alone."""
    firsts = [group[0] for group in groups]
    found = {site.share_group: InputMoments(site, len(context.clips)) for site in firsts}
    for _, inputs in clip_inputs(context, stage):  # an encoder-decoder runs to make them, and is not read
        with _reading(context.model.module, firsts, found), contextlib.suppress(_Reached):
            context.model.module(*inputs)
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
