"""How far what each site reads drifts from full precision while the sites before it are rounded."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from bitvox.compiler.frontend.model import FloatArray, Site, SpeechModel
from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.input_moments import DriftMoments, InputMoments, frames
from bitvox.compiler.passes.lockstep import Lockstep, in_lockstep
from bitvox.compiler.passes.products import add_up
from bitvox.errors import InputError

HELD = 2**29
"""Bytes of what a site reads, of all clips together, up to which clips walk side by side from the start.

The first layers of a model that reads waveforms hold seven megabytes a second of audio, its last ones 150 kB:
there are frames enough for the ones in some of the clips, and room for all clips before the others.
"""


class _Party:
    """Clips that walk together; more of them from where there is room for more.

    Args:
        first: Number of the first of their passes.
        inputs: Of the passes.
        sizes: Numbers that a site reads for each that the model does.
    """

    def __init__(self, first: int, inputs: Sequence[tuple[Tensor, ...]], sizes: Mapping[str, float]) -> None:
        self._first, self._sizes = first, sizes
        self._ends = list(itertools.accumulate(one[0].numel() for one in inputs))
        self._count = 1

    def at(self, site: Site) -> range:
        """Numbers of the passes that are before this site, the next one of the walk."""
        room = HELD / 4 / self._sizes[site.name]
        self._count = max(self._count, sum(end <= room for end in self._ends))
        return range(self._first, self._first + self._count)


class Walk:
    """The model at full precision and a copy that is changed on the way, before the same site."""

    def __init__(
        self, full: Lockstep, changed: Lockstep, context: PassContext, own: _Party, generic: _Party | None
    ) -> None:
        self._full, self._changed, self._context = full, changed, context
        self._own, self._generic = own, generic

    @torch.inference_mode()
    def reach(self, site: Site) -> tuple[InputMoments, DriftMoments]:
        """Go on to a site: second moments of what it reads in the copy, and of how that has drifted.

        Raises:
            InputError: An activation is not finite.
        """
        moments, drift = self._measured(site, self._own.at(site))
        if self._generic is not None:
            assert self._context.generic is not None
            theirs, share = self._measured(site, self._generic.at(site)), self._context.generic.share
            moments, drift = moments.mixed(theirs[0], share), drift.mixed(theirs[1], share)
        if not moments.finite:
            raise InputError(f"site {site.name}: its inputs are not finite on the calibration clips")
        return moments, drift

    def _measured(self, site: Site, passes: range) -> tuple[InputMoments, DriftMoments]:
        wanted, found = (walk.advance(site, passes) for walk in (self._full, self._changed))
        moments, drift, threads = InputMoments(site), DriftMoments(site), self._context.threads
        for pair in zip(found, wanted, strict=True):
            seen, right = frames(site, pair, len(found), threads)
            add_up([*moments.parts(seen), *drift.parts(right - seen, seen)], threads)
        return moments, drift


@contextmanager
def walking_together(context: PassContext, changed: torch.nn.Module, sites: Sequence[Site]) -> Iterator[Walk]:
    """A walk from site to site (in execution order) over the calibration clips, and over the generic ones.

    Raises:
        InputError: There are no clips.
    """
    if not context.clips:
        raise InputError("audio: no clip to calibrate with; give at least one")
    model, others = context.model, () if context.generic is None else context.generic.clips
    sizes = _relative_sizes(model, context.clips[0])
    generic, own = ([model.inputs(samples) for samples in clips] for clips in (others, context.clips))
    inputs = (*own, *generic)
    with (
        in_lockstep(model.module, sites, inputs, context.threads) as full,
        in_lockstep(changed, sites, inputs, context.threads) as other,
    ):
        strangers = _Party(len(own), generic, sizes) if generic else None
        yield Walk(full, other, context, _Party(0, own, sizes), strangers)


def _relative_sizes(model: SpeechModel, samples: FloatArray) -> dict[str, float]:
    """Numbers that a site reads for each that the model does, by name of the site."""
    processor = model.processor
    inputs = model.inputs(samples[: max(processor.sampling_rate, processor.minimum_samples)])
    return {site.name: size / inputs[0].numel() for site, size in input_sizes(model, inputs)}


@torch.inference_mode()
def input_sizes(model: SpeechModel, inputs: tuple[Tensor, ...]) -> list[tuple[Site, int]]:
    """How many numbers the first site of each share group reads when the model runs on these inputs."""
    found: list[tuple[Site, int]] = []

    def hook_of(site: Site) -> Callable[[torch.nn.Module, tuple[Tensor, ...]], None]:
        return lambda _module, values: found.append((site, values[0].numel()))

    firsts = [group[0] for group in model.share_groups()]
    hooks = [model.site_module(site).register_forward_pre_hook(hook_of(site)) for site in firsts]
    try:
        model.module(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found
