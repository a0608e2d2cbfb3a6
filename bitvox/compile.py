"""The main job: a checkpoint, a voice and a budget become a bundle that was run before it was shipped."""

from __future__ import annotations

import dataclasses
import resource
import time
from collections.abc import Sequence
from pathlib import Path

from bitvox.bundling import Written, fill_bundle
from bitvox.compiler.passes.bytes import paper_bytes
from bitvox.compiler.passes.plan import QuantPlan
from bitvox.errors import InputError, RequestError
from bitvox.exporters.bundle import Bundle, check_output, write_atomically
from bitvox.exporters.targets import runtime
from bitvox.planning import plan_for
from bitvox.progress import Progress, no_progress
from bitvox.request import CompileReport, CompileRequest
from bitvox.sizes import format_size
from bitvox.store import default_store
from bitvox.voice import Voice, read_voice


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
    return plan_for(read_voice(request, store, progress), request, store, progress)


def sweep(
    request: CompileRequest, budgets: Sequence[int], progress: Progress = no_progress
) -> list[CompileReport]:
    """One bundle per budget, in folders of `request.out` named by the budget in bytes; the voice is read
    once."""
    if request.out is None:
        raise InputError("out: none given; name a folder for the bundles with --out")
    requests = [
        dataclasses.replace(request, budget=budget, out=request.out / str(budget)) for budget in budgets
    ]
    for one in requests:
        _check_request(one)
    voice = read_voice(request, default_store(), progress)
    return [_compile(one, voice, time.monotonic(), progress) for one in requests]


def _check_request(request: CompileRequest) -> None:
    """Refuse at once what would fail after the work is done."""
    if request.out is None:
        raise InputError("out: none given; name a folder for the bundle with --out")
    check_output(request.out)
    runtime(request.target, request.out).require_kernels(request.kernels)


def _compile(request: CompileRequest, voice: Voice, started: float, progress: Progress) -> CompileReport:
    assert request.out is not None
    plan = plan_for(voice, request, default_store(), progress)
    written: list[Written] = []

    def fill(folder: Path) -> None:
        written.append(fill_bundle(voice, plan, folder, request.allow_float, progress))
        _check_size(folder, plan.budget)

    write_atomically(request.out, fill)
    report = written[0].report
    return CompileReport(
        out=request.out,
        bytes=Bundle.open(request.out).bytes,
        budget=plan.budget,
        paper_bytes=paper_bytes(voice.model, plan),
        average_bits=_average_bits(voice, plan),
        plan=plan,
        kernels=report.kernels,
        parity=report.parity.worst[1],
        agreement=written[0].manifest.agreement,
        seconds=time.monotonic() - started,
        peak_memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _check_size(folder: Path, budget: int | None) -> None:
    size = sum(path.stat().st_size for path in folder.iterdir())
    if budget is not None and size > budget:
        raise RequestError(
            f"budget {format_size(budget)}: the bundle takes {size} bytes; the nearest budget is {size}"
        )


def _average_bits(voice: Voice, plan: QuantPlan) -> float:
    """Width per weight, over the quantised weights; 32 where a plan quantises nothing."""
    weighted = [
        (site.weights, entry.bits)
        for site, entry in zip(voice.model.sites, plan.sites, strict=True)
        if entry.bits is not None
    ]
    total = sum(weights for weights, _ in weighted)
    return sum(weights * bits for weights, bits in weighted) / total if total else 32.0
