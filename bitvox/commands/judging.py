"""`eval` and `bench`: how well a bundle hears and what it costs to run, each beside full precision."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from bitvox.commands.options import (
    BeamsOption,
    BundleArgument,
    JsonOption,
    LanguageOption,
    TaskOption,
    ThreadsOption,
)
from bitvox.commands.output import table, working
from bitvox.errors import InputError
from bitvox.printable import printable
from bitvox.sizes import format_size

if TYPE_CHECKING:
    from bitvox.benchmarks.evaluate import EvalReport, Scores
    from bitvox.benchmarks.latency import BenchReport, Measured, Spread
    from bitvox.benchmarks.metrics import Interval
    from bitvox.compiler.frontend.decoding import Task
    from bitvox.compiler.frontend.model import SpeechModel
    from bitvox.exporters.bundle import Bundle

_Checkpoint = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="The checkpoint that the bundle was made from, where its name no longer leads there.",
    ),
]
_FullPrecision = Annotated[
    bool, typer.Option(help="Run the full-precision checkpoint too, and compare with it.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("eval")(eval_command)
    app.command("bench")(bench_command)


def eval_command(
    bundle: BundleArgument,
    data: Annotated[
        Path,
        typer.Option(
            metavar="PATH",
            help="CSV table with the columns path (relative to it), text, and where known speaker and split; "
            "or a folder of audio, judged by agreement with full precision.",
        ),
    ],
    split: Annotated[str | None, typer.Option(help="Only rows with this value in the column split.")] = None,
    speaker: Annotated[str | None, typer.Option(help="Only rows of this speaker.")] = None,
    limit: Annotated[
        int | None, typer.Option(help="Only this many recordings, evenly spaced.", min=1)
    ] = None,
    language: LanguageOption = None,
    task: TaskOption = "transcribe",
    beams: BeamsOption = 1,
    checkpoint: _Checkpoint = None,
    full_precision: _FullPrecision = True,
    threads: ThreadsOption = 1,
    json: JsonOption = False,
) -> None:
    """Judge a bundle on recordings: word and character error rates with intervals, beside full precision.

    Texts are compared case-folded and without punctuation; intervals are bootstrapped over speakers.
    Transcripts that run in a loop and words for silent recordings are counted. Of a keyword classifier:
    accuracy, the table's labels in the column text, label or keyword.

        bitvox eval ./my-model --data test.csv --split test
    """
    with working() as progress:
        from bitvox.benchmarks.dataset import read_dataset
        from bitvox.benchmarks.evaluate import evaluate
        from bitvox.compiler.frontend.decoding import DecodingOptions
        from bitvox.exporters.bundle import Bundle

        options = DecodingOptions(language, cast("Task", task), beams=beams)
        opened = Bundle.open(bundle)
        opened.manifest.processor.check(options)
        dataset = read_dataset(data, split, speaker, limit)
        model = _checkpoint_of(opened, checkpoint) if full_precision else None
        report = evaluate(opened, dataset, model, progress, threads, options)
    print(report.to_json() if json else _eval_text(report))


def bench_command(
    bundle: BundleArgument,
    seconds: Annotated[float, typer.Option(help="Length of the audio that is run.")] = 3.0,
    checkpoint: _Checkpoint = None,
    full_precision: _FullPrecision = True,
    threads: ThreadsOption = 1,
    json: JsonOption = False,
) -> None:
    """Measure a bundle here: size, load, first and steady latency, memory, and the ratio to full precision.

    The ratio is printed whichever way it falls.
    """
    with working() as progress, tempfile.TemporaryDirectory() as scratch:
        from bitvox.benchmarks.latency import bench
        from bitvox.exporters.bundle import Bundle

        opened = Bundle.open(bundle)
        folder = None
        if full_precision:
            folder, model = Path(scratch), _checkpoint_of(opened, checkpoint)
            progress("export full precision", 0, 1)  # minutes of a large model
            _export(opened.manifest.target, model, folder)
            progress("export full precision", 1, 1)
        report = bench(opened, folder, seconds, threads, progress)
    print(report.to_json() if json else _bench_text(report))


def _checkpoint_of(bundle: Bundle, name: str | None) -> SpeechModel:
    """The full-precision model of a bundle; InputError when it cannot be had or is another one."""
    from bitvox.compiler.frontend.loading import load_model

    try:
        model = load_model(name or bundle.manifest.source)
    except InputError as error:
        raise InputError(f"{error}; name it with --checkpoint, or go without: --no-full-precision") from error
    if model.fingerprint != bundle.manifest.fingerprint:
        raise InputError(
            f"model '{model.source}': not the checkpoint that {bundle.folder} was made from; "
            "name that with --checkpoint, or go without: --no-full-precision"
        )
    return model


def _export(target: str, model: SpeechModel, folder: Path) -> None:
    from bitvox.exporters.targets import exporter

    exporter(target).export_full_precision(model, folder)


def _eval_text(report: EvalReport) -> str:
    lines = [
        f"{report.bundle}: {report.bytes} bytes",
        f"{report.clips} recordings, {report.seconds:.0f} s of audio from {report.data}"
        + (f" ({report.skipped} skipped)" if report.skipped else "")
        + (f"; {report.calibrated_on} of them calibrated the bundle" if report.calibrated_on else ""),
        f"computing time {report.real_time_factor:.3f} s per second of audio",
        "",
    ]
    rows = _score_rows("bundle", report.scores)
    if report.full_precision:
        rows += _score_rows("full precision", report.full_precision)
    lines.append(table(("model", "rate", "95 % interval", "sub", "ins", "del", "of", "on silence"), rows))
    if report.comparison:
        found = report.comparison
        classifier = report.scores.words_on_silence is None
        what = "other labels than its own" if classifier else "word error rate of its transcripts"
        lines += ["", f"against full precision: {what} {found.word_error_rate.rate},"]
        lines.append(f"  {100 * found.identical:.1f} % of clips the same")
        if found.difference and found.no_regression is not None:
            rate = "accuracy" if classifier else "word error rate"
            lines.append(f"  {rate} changed by {_points(found.difference)} (paired)")
            lines.append(f"  no regression on {100 * found.no_regression:.1f} % of clips")
    lines += _made_up(report)
    lines.append(f"intervals: 95 %, bootstrapped over each {report.clustered_by}")
    return "\n".join(lines)


def _made_up(report: EvalReport) -> list[str]:
    """How often transcripts loop, and get words for silence; nothing of a classifier."""
    full = report.full_precision
    rows = [("run in a loop", report.clips, report.scores.loops, full.loops if full else None)]
    invented = report.scores.invented, full.invented if full else None
    rows.append(("are words for a silent recording", report.silent, *invented))
    lines = []
    for what, count, ours, theirs in rows:
        if ours is not None:
            beside = "" if theirs is None else f", at full precision {len(theirs)}"
            first = f"; the first: {printable(ours[0])}" if ours else ""
            lines.append(f"transcripts that {what}: {len(ours)} of {count}{beside}{first}")
    return lines


def _points(difference: Interval) -> str:
    if difference.percent is None:
        return "nothing that can be told"
    return f"{difference.percent:+.2f} points [{difference.low:+.2f}, {difference.high:+.2f}]"


def _score_rows(name: str, scores: Scores) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    if scores.accuracy:
        value, _, interval = str(scores.accuracy).partition(" % ")
        return [(f"{name} accuracy", f"{value} %", interval, "-", "-", "-", "-", "-")]
    for label, rate in (("WER", scores.words), ("CER", scores.characters)):
        if rate:
            value, _, interval = str(rate.rate).partition(" % ")
            edits = (rate.substitutions, rate.insertions, rate.deletions, rate.length)
            rows.append((f"{name} {label}", f"{value} %", interval, *edits, scores.words_on_silence))
    silent = "-" if scores.words_on_silence is None else scores.words_on_silence
    return rows or [(name, "-", "-", "-", "-", "-", "-", silent)]


def _bench_text(report: BenchReport) -> str:
    columns = [("bundle", report.measured)]
    if report.full_precision:
        columns.append(("full precision", report.full_precision))
    rows = [
        ("size", *(format_size(measured.bytes) for _, measured in columns)),
        ("load", *(_milliseconds(measured.load) for _, measured in columns)),
        ("first run", *(_milliseconds(measured.first) for _, measured in columns)),
        ("steady run", *(_milliseconds(measured.steady) for _, measured in columns)),
        ("per second of audio", *(f"{1000 * measured.real_time_factor:.1f} ms" for _, measured in columns)),
        ("peak memory", *(_memory(measured) for _, measured in columns)),
    ]
    lines = [table(("", *(name for name, _ in columns)), rows)]
    if report.time_ratio:
        ratio = report.time_ratio
        word = "the time" if ratio.median <= 1 else "the time, slower"
        lines.append(
            f"\n{ratio.median:.2f}x {word} of full precision ({ratio.low:.2f} to {ratio.high:.2f}, "
            f"{ratio.count} rounds), {report.seconds:g} s of audio, {report.num_threads} thread(s)"
        )
    kernels = f", bitvox's kernels by {report.isa}" if report.isa else ""
    lines.append(f"{report.machine['cpu']}{kernels}; load {report.machine['load']} when it began")
    lines.append(report.method)
    return "\n".join(lines)


def _milliseconds(spread: Spread) -> str:
    return f"{1000 * spread.median:.1f} ms ({1000 * spread.low:.1f} to {1000 * spread.high:.1f})"


def _memory(measured: Measured) -> str:
    return "unknown here" if measured.peak_memory is None else format_size(max(0, measured.peak_memory))
