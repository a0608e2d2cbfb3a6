"""Second moments of what every site reads, H = E[x x^T], gathered while the clips go by.

The error that rounding a weight row w to w' leaves in the site's output is (w' - w) H (w' - w)^T a frame:
H is the Hessian of the layer-wise problem that GPTQ solves (Frantar et al. 2022, arXiv 2210.17323). Nothing
but sums is kept: no activation outlives its clip.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence

import torch
from safetensors.torch import load, save
from torch import Tensor

from bitvox.compiler.frontend.model import Site
from bitvox.compiler.frontend.threads import side_by_side
from bitvox.compiler.passes.base import ByteStore, PassContext, clips_digest
from bitvox.compiler.passes.lockstep import in_lockstep
from bitvox.compiler.passes.products import (
    Part,
    add_up,
    count_of,
    frames_of,
    from_lags,
    mirrored,
    parts_of,
    slides,
    sums_of,
)
from bitvox.compiler.passes.rows import DAMPING
from bitvox.errors import InputError

FRAMES = 32_768
"""Frames of a strided convolution that count, over all clips: neighbours overlap and say little more, and the
first convolutions see thousands of frames a second."""

# On AN4 at 2.5 bits 0.3 to 1 are alike; against none they take a quarter off the divergence on other speakers
# of 3 to 23 s of audio, a sixth off that of 43 s, and nothing off that of 270 s.
_FEW_FRAMES = 0.5


def frames(site: Site, values: Sequence[Tensor], clips: int, threads: int) -> list[Tensor]:
    """What a site reads of its inputs in some of so many clips, `products.frames_of` each."""

    @torch.inference_mode()
    def of(one: Tensor) -> Tensor:
        return frames_of(site, one, max(1, FRAMES // clips))

    return side_by_side(of, values, threads)


class InputMoments:
    """H of one input, [groups, K, K]: one for all sites of a share group, which read the same.

    A convolution's K inputs of an output frame are those of `observers.columns`: channels of the group times
    taps.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self.groups = 1 if site.conv is None else site.conv.groups
        self.inputs = site.weights // site.channels
        self._sum = sums_of(site)
        self._frames = 0.0

    @property
    def damping(self) -> float:
        """Share of H's mean diagonal that its diagonal takes when weights are rounded.

        Of fewer frames more: along what few frames say of many inputs, H is what those frames happened to
        be. A ridge in proportion to K over the frames is of the order of that error.
        """
        return DAMPING + _FEW_FRAMES * self.inputs / self._frames

    @property
    def finite(self) -> bool:
        """Whether every input was."""
        return bool(torch.isfinite(self._sum).all())

    def parts(self, seen: Tensor) -> list[Part]:
        """What takes in what the site reads of one clip, `frames` of it."""
        self._frames += count_of(self._site, seen)
        return parts_of(self._site, self._sum, seen, seen)

    def hessian(self, group: int) -> Tensor:
        """H of one group of channels, [K, K]."""
        if self._frames == 0:
            raise ValueError(f"site {self._site.name}: no input seen")
        mean = self._sum[group] / self._frames
        return from_lags(mean, mean) if slides(self._site) else mirrored(mean)

    def mixed(self, generic: InputMoments, share: float) -> InputMoments:
        """(1 - share) H of the other + share H of this one, of the same site."""
        # Of as many frames as a mean with that variance has.
        frames = 1 / ((1 - share) ** 2 / generic._frames + share**2 / self._frames)
        mean = (1 - share) * generic._mean() + share * self._mean()
        return InputMoments.of_kept(self._site, {"sum": frames * mean, "frames": _number(frames)})

    def _mean(self) -> Tensor:
        return self._sum / self._frames

    def kept(self) -> dict[str, Tensor]:
        """What the moments are made of, to be kept."""
        return {"sum": self._sum, "frames": _number(self._frames)}

    @classmethod
    def of_kept(cls, site: Site, kept: Mapping[str, Tensor]) -> InputMoments:
        """The moments of a site that were `kept`."""
        found = cls(site)
        found._sum, found._frames = kept["sum"], float(kept["frames"])
        return found

    def of_groups(self, numbers: Tensor) -> InputMoments:
        """The same of some groups of channels alone."""
        part = copy.copy(self)
        part._sum, part.groups = self._sum[numbers], len(numbers)
        return part


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


class DriftMoments:
    """How an input's drift d from another input x goes with it: E[d x^T], per group of channels."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._forward = sums_of(site)
        # Of a convolution that slides, what is behind another tap is not what is ahead of it.
        self._backward = sums_of(site) if slides(site) else self._forward
        self._frames = 0

    def parts(self, lost: Tensor, seen: Tensor) -> list[Part]:
        """What takes in one clip, `frames` of it: how they drifted, and what they are."""
        self._frames += count_of(self._site, seen)
        found = parts_of(self._site, self._forward, lost, seen)
        return found + parts_of(self._site, self._backward, seen, lost) if slides(self._site) else found

    def mixed(self, generic: DriftMoments, share: float) -> DriftMoments:
        """(1 - share) of the other + share of this one, of the same site."""
        found = DriftMoments(self._site)
        pairs = ((one._forward / one._frames, one._backward / one._frames) for one in (generic, self))
        theirs, ours = pairs
        found._forward = (1 - share) * theirs[0] + share * ours[0]
        found._backward = (1 - share) * theirs[1] + share * ours[1]
        found._frames = 1
        return found

    def matrix(self, group: int) -> Tensor:
        """E[d x^T] of one group of channels, [K, K]."""
        forward = self._forward[group] / self._frames
        if not slides(self._site):
            return forward
        return from_lags(forward, self._backward[group] / self._frames)


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
            found[group[0].share_group] = InputMoments.of_kept(group[0], load(kept))
    missing = [group for group in groups if group[0].share_group not in found]
    if missing:
        fresh = _seen(context, missing, "measure generic inputs")
        found.update(fresh)
        if store is not None:
            for name, moments in fresh.items():
                store.put_bytes(keys[name], save(moments.kept()))
    return found


@torch.inference_mode()
def _seen(context: PassContext, groups: Sequence[tuple[Site, ...]], stage: str) -> dict[str, InputMoments]:
    """H of what the groups read in these clips alone."""
    if not context.clips:
        raise InputError("audio: no clip to calibrate with; give at least one")
    firsts = [group[0] for group in groups]
    found = {site.share_group: InputMoments(site) for site in firsts}
    for number in range(0, len(context.clips), context.threads):
        clips = context.clips[number : number + context.threads]
        inputs = [context.model.inputs(samples) for samples in clips]
        with in_lockstep(context.model.module, firsts, inputs, context.threads) as passes:
            for site in firsts:
                values = passes.advance(site, range(len(inputs)))
                for seen in frames(site, values, len(context.clips), context.threads):
                    add_up(found[site.share_group].parts(seen), context.threads)
        context.progress(stage, number + len(clips), len(context.clips))
    for site in firsts:
        if not found[site.share_group].finite:
            raise InputError(f"site {site.name}: its inputs are not finite on the calibration clips")
    return found
