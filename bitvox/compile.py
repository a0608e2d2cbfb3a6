"""The main job: a checkpoint, a voice and a budget become a bundle that was run before it was shipped."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from bitvox.bundling import fill_bundle
from bitvox.compiler.passes.bytes import average_bits, paper_bytes
from bitvox.compiler.passes.plan import QuantPlan
from bitvox.effort import measurement
from bitvox.errors import InputError, RequestError
from bitvox.estimate import estimate, try_out
from bitvox.exporters.bundle import check_output, folder_bytes, write_atomically
from bitvox.exporters.targets import runtime
from bitvox.memory import forget_peak, memory
from bitvox.personal import with_share
from bitvox.planning import plan_for
from bitvox.progress import Progress, logger, no_progress
from bitvox.request import CompileReport, CompileRequest, SweepReport
from bitvox.sizes import format_size
from bitvox.store import default_store
from bitvox.voice import Voice, read_voice

# Below them rounding fits the recordings more than the voice: at 2.5 bits 11 s of AN4 leave twice the
# divergence on other speakers that 90 s do, and 43 s a fifth more (`bitvox reproduce clips`).
_LITTLE_SECONDS, _NARROW_BITS = 45.0, 4.0


def compile_bundle(request: CompileRequest, progress: Progress = no_progress) -> CompileReport:
    """Write the bundle that `request` asks for.

    Finished steps are kept between runs, so that an interrupted compile resumes; the bundle appears whole or
    not at all.

    Raises:
        InputError: The model, the audio, the plan or the output folder cannot be used.
        RequestError: The request cannot be met; names the nearest that can.
    """
    started = time.monotonic()
    _check_request(request)
    return _compile(request, read_voice(request, default_store(), progress), started, progress)


def make_plan(request: CompileRequest, progress: Progress = no_progress) -> QuantPlan:
    """The decision alone; raises as `compile_bundle` does."""
    store = default_store()
    voice = with_share(read_voice(request, store, progress), request, store, progress)
    _tell_estimate(voice, request)
    return plan_for(voice, request, store, progress)


def sweep(request: CompileRequest, budgets: Sequence[int], progress: Progress = no_progress) -> SweepReport:
    """One bundle per budget, in folders of `request.out` named by the budget in bytes.

    The voice is read once. A budget that cannot be met does not keep the others from being tried.

    Raises:
        InputError: As `compile_bundle`.
    """
    if request.out is None:
        raise InputError("out: none given; name a folder for the bundles with --out")
    requests = [
        dataclasses.replace(request, budget=budget, out=request.out / str(budget)) for budget in budgets
    ]
    for one in requests:
        _check_request(one)
    voice = read_voice(request, default_store(), progress)
    reports: list[CompileReport] = []
    unreachable: dict[int, str] = {}
    for budget, one in zip(budgets, requests, strict=True):
        try:
            reports.append(_compile(one, voice, time.monotonic(), progress))
        except RequestError as error:
            unreachable[budget] = str(error)
    return SweepReport(tuple(reports), unreachable)


def _tell_estimate(voice: Voice, request: CompileRequest) -> None:
    """One line on what the method will take, before it takes it."""
    if request.plan is not None or request.method != "auto":
        return
    found = estimate(voice, measurement(request), try_out(voice), torch.get_num_threads())
    logger.info("effort %s: %s, less where steps are kept from before", request.effort, found.line())


def _check_request(request: CompileRequest) -> None:
    """Refuse at once what would fail after the work is done."""
    if request.out is None:
        raise InputError("out: none given; name a folder for the bundle with --out")
    check_output(request.out)
    runtime(request.target, request.out).require_kernels(request.chosen_kernels)


def _compile(request: CompileRequest, voice: Voice, started: float, progress: Progress) -> CompileReport:
    assert request.out is not None
    out = request.out
    forget_peak()
    store = default_store()
    voice = with_share(voice, request, store, progress)
    _tell_estimate(voice, request)
    plan = plan_for(voice, request, store, progress)
    _tell_little_audio(voice, plan)

    def fill(folder: Path) -> CompileReport:
        written = fill_bundle(voice, plan, folder, request.allow_float, store, progress)
        size = folder_bytes(folder)
        _check_size(size, plan.budget)
        return CompileReport(
            out=out,
            bytes=size,
            budget=plan.budget,
            paper_bytes=paper_bytes(voice.model, plan),
            average_bits=average_bits(voice.model, plan),
            plan=plan,
            kernels=written.report.kernels,
            parity=written.report.parity.worst[1],
            agreement=written.manifest.agreement,
            unit="labels" if voice.model.family == "classifier" else "words",
            seconds=time.monotonic() - started,
            peak_memory=memory("VmHWM"),
        )

    # Whatever can fail is over when the bundle appears.
    return write_atomically(out, fill)


def _tell_little_audio(voice: Voice, plan: QuantPlan) -> None:
    """One line where narrow weights are rounded by what few recordings say."""
    seconds = sum(clip.seconds for clip in voice.learnt_from)
    listens = any(entry.rounding != "nearest" for entry in plan.sites)
    if listens and seconds < _LITTLE_SECONDS and average_bits(voice.model, plan) < _NARROW_BITS:
        logger.warning(
            f"{seconds:.0f} s of audio calibrate, little for fewer than {_NARROW_BITS:g} bits: weights will "
            "fit these recordings more than the voice; record a minute, or mix others in with --generic"
        )


def _check_size(size: int, budget: int | None) -> None:
    if budget is not None and size > budget:
        raise RequestError(
            f"budget {format_size(budget)}: the bundle takes {size} bytes; the nearest budget is {size}"
        )
