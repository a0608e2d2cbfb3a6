"""How far what each site reads drifts from full precision while the sites before it are rounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from bitvox.compiler.frontend.model import FloatArray, Site
from bitvox.compiler.frontend.threads import side_by_side
from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.input_moments import DriftMoments, InputMoments
from bitvox.compiler.passes.lockstep import Lockstep, in_lockstep
from bitvox.errors import InputError

WALK_SECONDS = 160.0
"""Of the clips, which are all in memory at once, each as far as the model has got with it: the first layers
of a model that reads waveforms hold seven megabytes a second."""


class Walk:
    """The model at full precision and a copy that is changed on the way, before the same site."""

    def __init__(self, full: Lockstep, changed: Lockstep, context: PassContext, generic_clips: int) -> None:
        self._full, self._changed, self._context = full, changed, context
        self._generic_clips = generic_clips

    @torch.inference_mode()
    def reach(self, site: Site) -> tuple[InputMoments, DriftMoments]:
        """Go on to a site: second moments of what it reads in the copy, and of how that has drifted.

        Raises:
            InputError: An activation is not finite.
        """
        wanted, found, count = self._full.advance(site), self._changed.advance(site), self._generic_clips
        moments, drift = self._measured(site, wanted[count:], found[count:])
        if self._context.generic is not None:
            theirs, share = self._measured(site, wanted[:count], found[:count]), self._context.generic.share
            moments, drift = moments.mixed(theirs[0], share), drift.mixed(theirs[1], share)
        if not moments.finite:
            raise InputError(f"site {site.name}: its inputs are not finite on the calibration clips")
        return moments, drift

    def _measured(
        self, site: Site, wanted: Sequence[Tensor], found: Sequence[Tensor]
    ) -> tuple[InputMoments, DriftMoments]:
        moments, drift = InputMoments(site, len(found)), DriftMoments(site, len(found))

        def of_inputs() -> None:
            for values in found:
                moments.update(values)

        def of_drift() -> None:
            for values, right in zip(found, wanted, strict=True):
                drift.update(right - values, values)

        def call(measure: Callable[[], None]) -> None:
            with torch.inference_mode():
                measure()

        side_by_side(call, (of_inputs, of_drift), self._context.threads)
        return moments, drift


@contextmanager
def walking_together(context: PassContext, changed: torch.nn.Module, sites: Sequence[Site]) -> Iterator[Walk]:
    """A walk from site to site (in execution order) over the calibration clips, and over the generic ones.

    Raises:
        InputError: There are no clips.
    """
    if not context.clips:
        raise InputError("audio: no clip to calibrate with; give at least one")
    generic = [] if context.generic is None else list(_first_seconds(context.of_generic()))
    inputs = [context.model.inputs(samples) for samples in (*generic, *_first_seconds(context))]
    with (
        in_lockstep(context.model.module, sites, inputs, context.threads) as full,
        in_lockstep(changed, sites, inputs, context.threads) as other,
    ):
        yield Walk(full, other, context, len(generic))


def _first_seconds(context: PassContext) -> Iterator[FloatArray]:
    """As many clips as fit into `WALK_SECONDS`; the last may be cut."""
    processor = context.model.processor
    left = round(WALK_SECONDS * processor.sampling_rate)
    for samples in context.clips:
        part = samples[:left]
        if part.size < processor.minimum_samples:
            break
        yield part
        left -= part.size
