"""How much a bundle leans on the user's own clips: chosen by clips of the user, without a transcript."""

from __future__ import annotations

from dataclasses import replace

from bitvox.compiler.lowering.rounding import round_sites
from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.divergence import Divergence
from bitvox.compiler.passes.quantizer import quantise_module
from bitvox.planning import byte_costs, plan_for
from bitvox.progress import Progress, logger, no_progress
from bitvox.request import CompileRequest
from bitvox.store import FileStore
from bitvox.voice import Voice

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""The weights of the user's clips that are tried."""

_UNTOLD = 0.5
_FEWEST = 4
_SECONDS = 60.0


def with_share(
    voice: Voice, request: CompileRequest, store: FileStore, progress: Progress = no_progress
) -> Voice:
    """The voice with the share that `request` names, or else with the best on clips held out for it.

    A quarter of the calibration clips is set aside; for each of `SHARES` the plan that `request` asks for is
    made from the others, and the share whose model's output distribution moves least from full precision
    there, KL(full precision || quantised), is taken; of equals the smallest. Clips that judge the bundle have
    no part in it.

    Raises:
        RequestError: As `plan_for`.
    """
    if not voice.generic:
        return voice
    if request.own_share is not None:
        return replace(voice, share=request.own_share)
    held, kept = voice.calibration[::4], tuple(clip for n, clip in enumerate(voice.calibration) if n % 4)
    if len(voice.calibration) < _FEWEST:
        logger.warning(
            f"{len(voice.calibration)} recordings calibrate, too few to choose own_share by: {_UNTOLD:g}"
        )
        return replace(voice, share=_UNTOLD)
    costs = byte_costs(voice, request.storage, request.chosen_kernels)
    judge = Divergence(PassContext(voice.model, tuple(clip.samples for clip in held), costs), _SECONDS)
    found = {}
    for number, share in enumerate(SHARES):
        progress("choose share", number, len(SHARES))
        trial = replace(voice, calibration=kept, share=share)
        plan = plan_for(trial, request, store, no_progress)
        codes = round_sites(trial.context(costs, store=store), plan, store)
        found[share] = judge.of(quantise_module(voice.model, plan, codes))
    progress("choose share", len(SHARES), len(SHARES))
    return replace(voice, share=min(found, key=lambda share: found[share]))
