"""`compile`, `plan` and `sweep`: from a checkpoint, a voice and a budget to a bundle or its plan."""

from __future__ import annotations

import dataclasses
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitvox.commands.options import (
    ActivationsOption,
    AllowFloatOption,
    AudioOption,
    BudgetOption,
    CalibrationOption,
    ClipsOption,
    CostOption,
    EffortOption,
    GenericOption,
    JsonOption,
    KernelsOption,
    MethodOption,
    ModelArgument,
    OrderOption,
    OwnShareOption,
    ReductionOption,
    RoundingOption,
    SeedOption,
    StorageOption,
    TargetOption,
    TierOption,
)
from bitvox.commands.output import print_failure, print_json, table, working
from bitvox.errors import InputError
from bitvox.request import (
    DECIDED_BY_PLAN,
    CompileReport,
    CompileRequest,
    beside_plan,
)
from bitvox.sizes import format_size, parse_size

if TYPE_CHECKING:
    from bitvox.compiler.passes.plan import QuantPlan


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("compile")(compile_command)
    app.command("plan")(plan_command)
    app.command("sweep")(sweep_command)


def compile_command(
    ctx: typer.Context,
    model: ModelArgument,
    audio: AudioOption,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the bundle; a bundle that is there is replaced.")
    ],
    budget: BudgetOption = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Follow the widths and forms of this plan (of `bitvox plan`, edited or not); its ranges and "
            "clip are calibrated anew, since clips that judge must have had no hand in them.",
        ),
    ] = None,
    target: TargetOption = "onnx",
    method: MethodOption = "auto",
    effort: EffortOption = "normal",
    cost: CostOption = None,
    rounding: RoundingOption = None,
    order: OrderOption = "ascending",
    reduction: ReductionOption = "median",
    calibration: CalibrationOption = "min-max",
    tier: TierOption = "default",
    activations: ActivationsOption = "static",
    storage: StorageOption = "packed",
    kernels: KernelsOption = None,
    allow_float: AllowFloatOption = False,
    clips: ClipsOption = None,
    seed: SeedOption = 0,
    generic: GenericOption = None,
    own_share: OwnShareOption = None,
    json: JsonOption = False,
) -> None:
    """Fit MODEL to a voice and a byte budget: the bundle is run and compared before it is reported.

    An interrupted compile resumes; the bundle appears whole or not at all.

        bitvox compile reference-ctc --audio ./my-voice --budget 3MB --out ./my-model
    """
    if plan is not None and (given := _given(ctx, DECIDED_BY_PLAN)):
        raise beside_plan(plan, [f"--{name}" for name in given])
    request = _request(locals())
    if budget is None and plan is None:
        raise InputError("budget: none given; write --budget 45MB, or --plan FILE to follow a plan")
    with working() as progress:
        from bitvox.compile import compile_bundle

        report = compile_bundle(request, progress)
    if json:
        print_json(_report_document(report))
    else:
        _print_report(report)


def plan_command(
    model: ModelArgument,
    audio: AudioOption,
    budget: Annotated[
        str, typer.Option(metavar="SIZE", help="Ceiling on the bytes of the whole bundle: 45MB, 43MiB.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Write the plan here instead of to stdout."),
    ] = None,
    target: TargetOption = "onnx",
    method: MethodOption = "auto",
    effort: EffortOption = "normal",
    cost: CostOption = None,
    rounding: RoundingOption = None,
    order: OrderOption = "ascending",
    reduction: ReductionOption = "median",
    calibration: CalibrationOption = "min-max",
    tier: TierOption = "default",
    activations: ActivationsOption = "static",
    storage: StorageOption = "packed",
    kernels: KernelsOption = None,
    clips: ClipsOption = None,
    seed: SeedOption = 0,
    generic: GenericOption = None,
    own_share: OwnShareOption = None,
    json: JsonOption = False,
) -> None:
    """Decide the width of every layer without writing a model: JSON to read, edit, and compile with.

    bitvox plan reference-ctc --audio ./my-voice --budget 3MB -o plan.json

    bitvox compile reference-ctc --audio ./my-voice --plan plan.json --out ./my-model
    """
    request = dataclasses.replace(_request(locals()), out=None)
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise InputError(f"{out}: name a file in a folder that exists")
    with working() as progress:
        from bitvox.compile import make_plan

        plan = make_plan(request, progress)
    _write_plan(plan, out, json)


def sweep_command(
    model: ModelArgument,
    audio: AudioOption,
    budget: Annotated[
        list[str],
        typer.Option(metavar="SIZE", help="Ceiling on the bytes of a bundle; give it once per bundle."),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder that gets one bundle per budget.")],
    target: TargetOption = "onnx",
    method: MethodOption = "auto",
    effort: EffortOption = "normal",
    cost: CostOption = None,
    rounding: RoundingOption = None,
    order: OrderOption = "ascending",
    reduction: ReductionOption = "median",
    calibration: CalibrationOption = "min-max",
    tier: TierOption = "default",
    activations: ActivationsOption = "static",
    storage: StorageOption = "packed",
    kernels: KernelsOption = None,
    allow_float: AllowFloatOption = False,
    clips: ClipsOption = None,
    seed: SeedOption = 0,
    generic: GenericOption = None,
    own_share: OwnShareOption = None,
    json: JsonOption = False,
) -> None:
    """Compile MODEL for many budgets at once and show which of them are worth their bytes.

    A budget that cannot be met is named on stderr and the others go on; the exit code is then 1.

    bitvox sweep reference-ctc --audio ./my-voice --budget 2MB --budget 3MB --budget 4MB --out ./models
    """
    request = dataclasses.replace(_request(locals()), budget=None)
    budgets = [parse_size(size) for size in budget]
    with working() as progress:
        from bitvox.compile import sweep

        found = sweep(request, budgets, progress)
    if json:
        unreachable = [{"budget": budget, "reason": why} for budget, why in found.unreachable.items()]
        bundles = [_report_document(report) for report in found.reports]
        print_json({"bundles": bundles, "unreachable": unreachable})
    elif found.reports:
        print(_sweep_table(found.reports))
    for why in found.unreachable.values():
        print_failure(why)
    if found.unreachable:
        raise typer.Exit(1)


def _given(ctx: typer.Context, names: Sequence[str]) -> list[str]:
    """Those of a command's parameters that the command line names, be it with their default."""
    sources = {name: ctx.get_parameter_source(name) for name in names}
    return [name for name, source in sources.items() if source and source.name == "COMMANDLINE"]


def _request(options: dict[str, Any]) -> CompileRequest:
    """The request that a command's parameters spell; a field that it does not have keeps its default."""
    fields = {field.name for field in dataclasses.fields(CompileRequest)}
    given = {name: value for name, value in options.items() if name in fields}
    if isinstance(given.get("budget"), str):
        given["budget"] = parse_size(given["budget"])
    return CompileRequest(**given)


def _write_plan(plan: QuantPlan, out: Path | None, json: bool) -> None:
    from bitvox.compiler.passes.plan_json import plan_to_json

    text = plan_to_json(plan)
    if out is not None:
        partial = out.with_name(f".{out.name}.partial")
        try:
            partial.write_text(text, encoding="utf-8")
            partial.replace(out)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise InputError(f"{out}: cannot be written: {error.strerror}") from error
    if out is None or json:
        print(text, end="")
    else:
        widths = sorted(site.bits for site in plan.sites if site.bits)
        ends = dict.fromkeys((*widths[:1], *widths[-1:]))
        span = f"at {' to '.join(map(str, ends))} bits" if widths else "quantised"
        size = format_size(plan.total_bytes)
        print(f"{out}: {size} of {_ceiling(plan.budget)}, {len(widths)} of {len(plan.sites)} sites {span}")


def _report_document(report: CompileReport) -> dict[str, Any]:
    from bitvox.exporters.manifest import Manifest

    return {
        "out": str(report.out),
        "bytes": report.bytes,
        "budget": report.budget,
        "paper_bytes": report.paper_bytes,
        "average_bits": report.average_bits,
        "kernels": report.kernels,
        "parity": report.parity,
        "agreement": report.agreement and report.agreement.model_dump(),
        "seconds": report.seconds,
        "peak_memory": report.peak_memory,
        "plan": Manifest.plan_document(report.plan),
    }


def _print_report(report: CompileReport) -> None:
    kernels = Counter(report.kernels.values())
    rows = [
        ("bundle", report.out),
        ("size", f"{report.bytes} bytes ({format_size(report.bytes)}), budget {_ceiling(report.budget)}"),
        ("average", f"{report.average_bits:.2f} bits per quantised weight"),
        ("paper", f"{report.paper_bytes / 2**20:.2f} MiB by the accounting of myQASR's figure"),
        ("kernels", ", ".join(f"{count} x {kernel}" for kernel, count in kernels.most_common())),
        ("parity", f"worst site differs by {report.parity:.1e} from the quantised torch model"),
        ("held out", _agreement(report)),
        ("took", f"{report.seconds:.0f} s{_memory(report.peak_memory)}"),
    ]
    print("\n".join(f"{name:<9} {value}" for name, value in rows))
    print(f"\nTry it:   bitvox transcribe {shlex.quote(str(report.out))} RECORDING")


def _memory(peak: int | None) -> str:
    return "" if peak is None else f", {format_size(peak)} of memory at most"


def _agreement(report: CompileReport) -> str:
    if report.agreement is None:
        return "nothing to judge with: give at least two different recordings"
    found = report.agreement
    return (
        f"{found.word_error_rate:.1f} % of {report.unit} changed by quantisation, "
        f"{100 * found.identical:.0f} % of {found.clips} clips the same"
    )


def _ceiling(budget: int | None) -> str:
    return "none" if budget is None else format_size(budget)


def _sweep_table(reports: Sequence[CompileReport]) -> str:
    """One row per budget; a star marks those that no other beats in bytes and agreement (Pareto front)."""
    rows = []
    for report in sorted(reports, key=lambda one: one.bytes):
        found = report.agreement
        rows.append(
            (
                "*" if _on_front(report, reports) else "",
                _ceiling(report.budget),
                report.bytes,
                f"{report.average_bits:.2f}",
                f"{found.word_error_rate:.2f}" if found else "-",
                f"{100 * found.identical:.0f}" if found else "-",
                report.out,
            )
        )
    headers = ("front", "budget", "bytes", "bits", f"changed {reports[0].unit} %", "same clips %", "bundle")
    return table(headers, rows)


def _on_front(report: CompileReport, reports: Sequence[CompileReport]) -> bool:
    if report.agreement is None:
        return False
    point = (report.bytes, report.agreement.word_error_rate)
    others = [
        (one.bytes, one.agreement.word_error_rate) for one in reports if one.agreement and one is not report
    ]
    return not any(a <= point[0] and b <= point[1] and (a, b) != point for a, b in others)
