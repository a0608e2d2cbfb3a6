"""From a voice and a budget to a plan whose predicted bytes are the bytes that will be written."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from bitvox.bundling import planned_bytes
from bitvox.compiler.frontend.model import Site
from bitvox.compiler.passes.allocate import AllocateMyQASRPass, bytes_at_width
from bitvox.compiler.passes.allocate_exact import AllocateExactPass
from bitvox.compiler.passes.base import Pass, Sequential
from bitvox.compiler.passes.calibrate import CalibratePass
from bitvox.compiler.passes.conv_ranges import FitConvRangesPass
from bitvox.compiler.passes.distance import DISTANCES, MeasureDistancePass
from bitvox.compiler.passes.measure_costs import MeasureCostsPass
from bitvox.compiler.passes.personalise import PersonalisePass
from bitvox.compiler.passes.plan import WIDTHS, Kernels, QuantPlan, Range, SitePlan, Storage, rounded
from bitvox.compiler.passes.plan_json import plan_from_json
from bitvox.compiler.passes.refine_costs import RefineCostsPass
from bitvox.compiler.passes.sensitivity import MeasureSensitivityPass
from bitvox.compiler.passes.start import start_plan
from bitvox.compiler.passes.verify import verify_plan
from bitvox.effort import measurement
from bitvox.errors import InputError, RequestError
from bitvox.exporters.targets import TargetCosts
from bitvox.progress import Progress, logger
from bitvox.request import CompileRequest
from bitvox.sizes import format_size
from bitvox.store import FileStore
from bitvox.voice import Voice

# A correction moves the plan by at most a bit or two; what it then misses is a digit in an offset.
_MOST_CORRECTIONS = 4

# Predictions miss by unpack tables and digits, far less than this.
_PREDICTION_MARGIN = 65_536


def plan_for(voice: Voice, request: CompileRequest, store: FileStore, progress: Progress) -> QuantPlan:
    """The plan that `request` asks for: read from its file, or made by its method.

    Raises:
        InputError: The plan file does not fit the model.
        RequestError: The budget cannot be met; names the smallest that can.
    """
    if request.plan is not None:
        given = _read_plan(voice, request)
        plan = _calibrated(voice, request, _counted(voice, request, given), store, progress)
        _tell_recalibrated(request.plan, given, plan)
        return plan
    allocated = allocated_plan(voice, request, store, progress)
    return _calibrated(voice, request, allocated, store, progress)


def allocated_plan(voice: Voice, request: CompileRequest, store: FileStore, progress: Progress) -> QuantPlan:
    """The widths that `request` asks for, not calibrated yet; its bytes are those that the files will have.

    Raises:
        RequestError: The budget cannot be met; names the smallest that can.
    """
    if request.budget is None:
        raise InputError("budget: none given; write --budget 45MB, or --plan with a plan to follow")
    progress("size", 0, 1)
    costs, start = _measured_start(voice, request)
    progress("size", 1, 1)
    context = voice.context(costs, progress, store)
    scored = Sequential(_personal(voice, _measures(request))).run(context, start, store)
    scored = _shared(voice, scored)
    return voice.exporter.settle(voice.model, _allocate(voice, request, costs, scored, progress))


def _shared(voice: Voice, plan: QuantPlan) -> QuantPlan:
    """The plan, which says how much of it is learnt from the voice."""
    return plan.noting(own_share=f"{voice.share:g}") if voice.generic else plan


def _measures(request: CompileRequest) -> tuple[Pass, ...]:
    """The passes that an allocation of that method rests on."""
    by_distance = request.reduction in DISTANCES
    sensitivity: Pass = (MeasureDistancePass if by_distance else MeasureSensitivityPass)(request.reduction)
    if request.method != "auto":
        return (sensitivity,)
    assert request.budget is not None
    how = measurement(request)
    measure: tuple[Pass, ...] = (MeasureCostsPass(how.cost, request.seed, how.seconds, how.sample),)
    if how.cost == "median":
        measure = (sensitivity, *measure)
    if how.cost == "divergence" and how.rounds:
        measure = (*measure, RefineCostsPass(request.budget, how.rounds))
    return measure


def _measured_start(voice: Voice, request: CompileRequest) -> tuple[TargetCosts, QuantPlan]:
    """The plan at its widest, and costs that know what its files really take."""
    costs = byte_costs(voice, request.storage, request.chosen_kernels)
    start = start_plan(
        voice.model,
        costs,
        request.target,
        request.tier,
        request.activations,
        request.chosen_kernels,
        request.chosen_rounding,
    )
    start = start.replace(storage=request.storage)
    verify_plan(voice.model, start)
    costs = costs.corrected(_missed(voice, request, start))
    return costs, start.replace(fixed_bytes=costs.fixed)


def _allocate(
    voice: Voice, request: CompileRequest, costs: TargetCosts, scored: QuantPlan, progress: Progress
) -> QuantPlan:
    """Widths under the budget: each try is sized by its files; what it missed corrects the next."""
    assert request.budget is not None
    allocate = _allocation(request, request.budget)
    fitting = _least(voice, request, allocate, costs, scored)
    for attempt in range(_MOST_CORRECTIONS):
        progress("allocate", attempt, _MOST_CORRECTIONS)
        base = scored.replace(fixed_bytes=costs.fixed)
        try:
            plan = Sequential((allocate,)).run(voice.context(costs, progress), base)
        except RequestError:  # so near the smallest that a correction overshot it
            break
        missed = _missed(voice, request, plan)
        sized = plan.replace(fixed_bytes=plan.fixed_bytes + missed)
        if sized.total_bytes <= request.budget and (
            fitting is None or sized.total_bytes > fitting.total_bytes
        ):
            fitting = sized
        if missed == 0:
            break
        costs = costs.corrected(missed)
    progress("allocate", _MOST_CORRECTIONS, _MOST_CORRECTIONS)
    if fitting is None:
        raise RequestError(
            f"budget {format_size(request.budget)}: the nearest bundle takes {sized.total_bytes} bytes"
        )
    return fitting


def _allocation(request: CompileRequest, budget: int) -> AllocateExactPass | AllocateMyQASRPass:
    if request.method == "auto":
        return AllocateExactPass(budget)
    order = "uniform" if request.method == "uniform" else request.order
    return AllocateMyQASRPass(budget, order, seed=request.seed)


def _least(
    voice: Voice,
    request: CompileRequest,
    allocate: AllocateExactPass | AllocateMyQASRPass,
    costs: TargetCosts,
    scored: QuantPlan,
) -> QuantPlan | None:
    """The smallest plan, where the budget is so small that it may be the one; else None.

    Raises RequestError with the smallest budget that works, where this one does not.
    """
    context = voice.context(costs)
    base = scored.replace(fixed_bytes=costs.fixed)
    predicted = bytes_at_width(context, base, WIDTHS[0])
    if allocate.budget > predicted + _PREDICTION_MARGIN:
        return None
    least = dataclasses.replace(allocate, budget=predicted).run(context, base)
    least = least.replace(
        budget=allocate.budget, fixed_bytes=least.fixed_bytes + _missed(voice, request, least)
    )
    smallest = least.total_bytes
    if allocate.budget < smallest:
        raise RequestError(
            f"budget {format_size(allocate.budget)}: the smallest bundle of this model for this voice takes "
            f"{smallest} bytes ({format_size(smallest)})"
        )
    return least


def byte_costs(voice: Voice, storage: Storage, kernels: Kernels = "stock") -> TargetCosts:
    """What the voice's target charges in bytes."""
    return voice.exporter.byte_costs(voice.model, voice.skeleton, storage, kernels)


def _missed(voice: Voice, request: CompileRequest, plan: QuantPlan) -> int:
    """Bytes that the files of a plan take beyond its prediction."""
    stored = voice.exporter.settle(voice.model, _with_longest_numbers(voice, request, plan))
    return planned_bytes(voice, stored) - plan.total_bytes


def _with_longest_numbers(voice: Voice, request: CompileRequest, plan: QuantPlan) -> QuantPlan:
    """The plan with numbers as long as calibration may leave, so that its files can be sized before it."""
    groups = list(dict.fromkeys(site.share_group for site in voice.model.sites))
    searched = {} if request.calibration == "min-max" else {"clip": 0.1234567}

    def longest(site: Site, entry: SitePlan) -> SitePlan:
        if entry.bits is None:
            return entry
        entry = entry.replace(**searched)
        if entry.activations != "static":
            return entry
        position = groups.index(site.share_group)
        spans: dict[str, object] = {"input_range": _long_range(position)}
        if site.operator == "conv1d" and plan.kernels == "stock":
            spans["output_range"] = _long_range(position + len(groups))
        return entry.replace(**spans)

    sites = (longest(site, entry) for site, entry in zip(voice.model.sites, plan.sites, strict=True))
    return plan.replace(sites=tuple(sites)).noting(calibration=request.calibration)


def _long_range(position: int) -> Range:
    """A range with many digits, and a scale and a zero point that the next 253 positions do not have."""
    zero_point = 1 + position % 254
    high = 0.01234567 + position * 1e-8
    return Range(rounded(-high * zero_point / (255 - zero_point)), rounded(high))


def _calibrated(
    voice: Voice, request: CompileRequest, plan: QuantPlan, store: FileStore, progress: Progress
) -> QuantPlan:
    costs = byte_costs(voice, plan.storage, plan.kernels)
    passes: tuple[Pass, ...] = (CalibratePass(request.calibration, request.seed),)
    if plan.tier == "default":
        passes = (*passes, FitConvRangesPass())
    return Sequential(_personal(voice, passes)).run(voice.context(costs, progress, store), plan, store)


def _personal(voice: Voice, passes: tuple[Pass, ...]) -> tuple[Pass, ...]:
    """Passes that look at clips, as they run for this voice."""
    return (PersonalisePass(passes),) if voice.mixes else passes


def _read_plan(voice: Voice, request: CompileRequest) -> QuantPlan:
    """The plan in a file, which a person may have edited."""
    assert request.plan is not None
    plan = plan_from_json(_read_text(request.plan), str(request.plan))
    verify_plan(voice.model, plan)
    if plan.target != request.target:
        raise InputError(f"plan {request.plan}: made for target {plan.target}, not for {request.target}")
    return plan


def _counted(voice: Voice, request: CompileRequest, plan: QuantPlan) -> QuantPlan:
    """The widths and forms of a given plan; bytes are counted anew.

    What was calibrated is dropped: the clips that it looked at may be among those that are judged on now.
    """
    costs = byte_costs(voice, plan.storage, plan.kernels)
    sites = tuple(
        entry.replace(
            clip=1.0,
            input_range=None,
            output_range=None,
            stored_bytes=costs.site(site, entry.bits, entry.granularity, entry.activations),
        )
        for site, entry in zip(voice.model.sites, plan.sites, strict=True)
    )
    counted = _shared(voice, plan.replace(fixed_bytes=costs.fixed, sites=sites))
    missed = _missed(voice, request, counted)
    counted = voice.exporter.settle(voice.model, counted.replace(fixed_bytes=costs.fixed + missed))
    budget = request.budget or plan.budget or counted.total_bytes
    if counted.total_bytes > budget:
        raise RequestError(
            f"plan {request.plan}: takes {counted.total_bytes} bytes, over the budget of {budget}; "
            "lower some widths or raise the budget"
        )
    return counted.replace(budget=budget)


def _tell_recalibrated(path: Path, given: QuantPlan, plan: QuantPlan) -> None:
    """One line where a plan's file says other ranges than those that were found."""
    changed = [
        found.site
        for entry, found in zip(given.sites, plan.sites, strict=True)
        if (entry.clip, entry.input_range, entry.output_range) != (1.0, None, None)
        and (entry.clip, entry.input_range, entry.output_range)
        != (found.clip, found.input_range, found.output_range)
    ]
    if changed:
        logger.warning(
            "plan %s: clip and ranges of %d sites (%s first) are calibrated anew, not those in the file",
            path,
            len(changed),
            changed[0],
        )


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"plan {path}: cannot be read ({error})") from error
