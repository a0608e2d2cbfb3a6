"""`make demo`: one checkpoint, two voices, three budgets, one table; all that it reads ships with bitvox."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bitvox.benchmarks import demo_runtimes
from bitvox.benchmarks.dataset import Dataset, read_dataset
from bitvox.benchmarks.demo_runtimes import RuntimeRow, run_runtimes
from bitvox.benchmarks.evaluate import EvalReport, evaluate
from bitvox.benchmarks.latency import BenchReport, bench
from bitvox.benchmarks.machine import machine
from bitvox.compile import sweep
from bitvox.compiler.frontend.audio import read_folder, split_clips
from bitvox.compiler.frontend.loading import load_model
from bitvox.compiler.frontend.model import SpeechModel
from bitvox.exporters.bundle import Bundle
from bitvox.exporters.onnx.exporter import export_full_precision
from bitvox.progress import Progress, logger, progress_on_stderr
from bitvox.request import CompileReport, CompileRequest
from bitvox.sizes import format_size

MODEL = "reference-ctc"
BUDGETS = (1_200_000, 1_800_000, 3_000_000)
_RUNTIMES_BUDGET = BUDGETS[1]
_SECONDS = 3.0
_TABLE_WIDTH = 110


@dataclass(frozen=True)
class Row:
    """What one compile led to.

    Attributes:
        bits: Average width of the quantised weights.
        word_error_rate: On the clips kept out of calibration, in percent.
        agreement: Words of the full-precision transcripts that the bundle gets right, in percent.
        load: Milliseconds to load; `steady`: milliseconds per second of audio.
        ratio: Time over that of float32 ONNX Runtime, median of interleaved runs, with quartiles.
    """

    voice: str
    budget: int
    bytes: int
    bits: float
    word_error_rate: float
    agreement: float
    load: float
    steady: float
    ratio: tuple[float, float, float]
    bundle: str


HEADER = ("voice", "budget", "bytes", "bits", "WER %", "agreement %", "load ms", "ms per s", "time / fp32")


def sample_voices() -> list[Path]:
    """Folders of the synthetic voices that the package ships."""
    return sorted(
        path.parent for path in Path(str(files("bitvox") / "assets" / "voices")).glob("*/manifest.csv")
    )


def held_out(voice: Path, model: SpeechModel) -> Dataset:
    """The clips of a voice, with their texts, that a compile keeps out of calibration."""
    processor = model.processor
    clips = read_folder(voice, processor.sampling_rate, processor.minimum_samples, logger.warning)
    judging = {clip.path.name for clip in split_clips(clips)[1]}
    everything = read_dataset(voice / "manifest.csv")
    kept = tuple(one for one in everything.utterances if one.path.name in judging)
    return Dataset(everything.origin, kept)


def run_demo(out: Path, progress: Progress) -> tuple[list[Row], list[RuntimeRow]]:
    """Compile, judge and time every voice at every budget, into folders `out/VOICE/BYTES`.

    Then the first voice at one budget in every runtime, into folders named after it.
    """
    model = load_model(MODEL)
    full_precision = export_full_precision(model, out / "full-precision").parent
    rows: list[Row] = []
    runtimes: list[RuntimeRow] = []
    for voice in sample_voices():
        request = CompileRequest(model=MODEL, audio=voice, out=out / voice.name)
        dataset = held_out(voice, model)
        for compiled in sweep(request, BUDGETS, progress).all():
            bundle = Bundle.open(compiled.out)
            judged = evaluate(bundle, dataset, model, progress)
            timed = bench(bundle, full_precision, _SECONDS, progress=progress)
            rows.append(_row(voice.name, compiled, judged, timed))
            if not runtimes and compiled.budget == _RUNTIMES_BUDGET:
                runtimes = run_runtimes(request, compiled, dataset, _SECONDS, progress)
    return rows, runtimes


def cells(row: Row) -> tuple[str, ...]:
    """A row of the table, under `HEADER`."""
    return (
        row.voice,
        format_size(row.budget),
        str(row.bytes),
        f"{row.bits:.2f}",
        f"{row.word_error_rate:.1f}",
        f"{row.agreement:.1f}",
        f"{row.load:.0f}",
        f"{row.steady:.1f}",
        "{:.2f} [{:.2f}, {:.2f}]".format(*row.ratio),
    )


def _row(voice: str, compiled: CompileReport, judged: EvalReport, timed: BenchReport) -> Row:
    comparison, words, ratio = judged.comparison, judged.scores.words, timed.time_ratio
    assert comparison is not None and words is not None and ratio is not None and compiled.budget is not None
    return Row(
        voice=voice,
        budget=compiled.budget,
        bytes=compiled.bytes,
        bits=compiled.average_bits,
        word_error_rate=words.rate.percent or 0.0,
        agreement=100 - (comparison.word_error_rate.rate.percent or 0.0),
        load=1000 * timed.measured.load.median,
        steady=1000 * timed.measured.real_time_factor,
        ratio=(ratio.median, ratio.low, ratio.high),
        bundle=str(compiled.out),
    )


def _print(rows: list[Row], runtimes: list[RuntimeRow]) -> None:
    console = Console()
    console.width = max(console.width, _TABLE_WIDTH)
    table = Table(*HEADER)
    for row in rows:
        table.add_row(*cells(row))
    console.print(table)
    beside = Table(*demo_runtimes.HEADER)
    for one in runtimes:
        beside.add_row(*demo_runtimes.cells(one))
    console.print(f"The voice {rows[0].voice} in {format_size(_RUNTIMES_BUDGET)} for each runtime:")
    console.print(beside)
    example = min(sample_voices()[0].glob("*.ogg"))
    for line in (
        "bits: average width of the quantised weights. WER: on clips kept out of calibration.",
        "agreement: words of the full-precision transcripts that the bundle writes too.",
        "time / fp32: one thread, median of interleaved runs and quartiles; below 1 is faster.",
        "The voices are synthetic (espeak-ng).",
        "The first table is of stock ONNX Runtime; `--kernels packed` (weights stay packed in memory) and "
        "`--target executorch` are the other two.",
        f"Bundles are in {Path(rows[0].bundle).parents[1]}. Transcribe with one:",
        f"  {Path(sys.executable).with_name('bitvox')} transcribe {rows[1].bundle} {example}",
    ):
        console.print(line, soft_wrap=True, highlight=False)


def main() -> None:
    """Run the demo from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the bundles")
    parser.add_argument("--record", type=Path, help="JSON file to keep the rows in")
    options = parser.parse_args()
    started = time.monotonic()
    with progress_on_stderr() as progress:
        rows, runtimes = run_demo(options.out, progress)
    _print(rows, runtimes)
    if options.record:
        record = {
            "machine": machine(),
            "seconds": round(time.monotonic() - started),
            "rows": [dataclasses.asdict(row) for row in rows],
            "runtimes": [dataclasses.asdict(row) for row in runtimes],
        }
        options.record.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
