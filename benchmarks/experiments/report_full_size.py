"""The section on the full-size model."""

from __future__ import annotations

from pathlib import Path

from bitvox.benchmarks.experiments.full_size import (
    MEMORY_LIMIT,
    RATIO_GOAL,
    FullSizeDocument,
    FullSizeRow,
)
from bitvox.benchmarks.experiments.results import read_document
from bitvox.benchmarks.experiments.tables import count, origin, table
from bitvox.benchmarks.latency import Spread


def section(path: Path) -> str:
    """One table: compiling, and running beside full precision."""
    document = read_document(path, FullSizeDocument)
    parts = ["## A full-size model", origin(document.provenance, document.rows)]
    for row in document.rows:
        parts += [_compile_table(row), _run_table(row), _sentence(row)]
    return "\n\n".join(parts)


def _compile_table(row: FullSizeRow) -> str:
    kernels = ", ".join(f"{number} × {name}" for name, number in sorted(row.kernels.items()))
    return table(
        ("compile", ""),
        [
            ("parameters", count(row.parameters)),
            ("budget, bytes", count(row.budget)),
            ("bundle, bytes", count(row.bytes)),
            ("bits per quantised weight", f"{row.average_bits:.2f}"),
            ("wall time, s", f"{row.compile_seconds:.0f}"),
            ("peak memory", _megabytes(row.compile_peak_memory)),
            ("kernels reached", kernels),
            ("worst site against the quantised torch model", f"{row.parity:.1e}"),
        ],
    )


def _run_table(row: FullSizeRow) -> str:
    quantised, full = row.bundle, row.full_precision
    audio = f"{row.audio_seconds:g} s of audio, {row.threads} thread"
    return table(
        ("run", "bundle", "full precision"),
        [
            ("bytes", count(quantised.bytes), count(full.bytes)),
            ("load, ms", _milliseconds(quantised.load), _milliseconds(full.load)),
            ("first run, ms", _milliseconds(quantised.first), _milliseconds(full.first)),
            (f"steady run, ms ({audio})", _milliseconds(quantised.steady), _milliseconds(full.steady)),
            ("memory once loaded", _megabytes(quantised.resident_memory), _megabytes(full.resident_memory)),
            ("peak memory", _megabytes(quantised.peak_memory), _megabytes(full.peak_memory)),
            ("time ratio", f"{row.ratio.median:.2f} [{row.ratio.low:.2f}, {row.ratio.high:.2f}]", "1"),
        ],
    )


def _sentence(row: FullSizeRow) -> str:
    size = "at or under" if row.bytes <= row.budget else "OVER"
    time = "at or below" if row.ratio.median <= RATIO_GOAL else "ABOVE"
    if row.compile_peak_memory is None:
        memory = "an unknown peak of memory"
    else:
        side = "within" if row.compile_peak_memory <= MEMORY_LIMIT else "OVER"
        memory = f"{side} {MEMORY_LIMIT / 1e9:g} GB of memory"
    load = row.bundle.load.median / row.full_precision.load.median
    return (
        f"The bundle is {size} its budget, was compiled {memory}, and runs in {row.ratio.median:.2f} of "
        f"the time of full precision (median of {row.ratio.count} rounds, quartiles in brackets), {time} the "
        f"goal of {RATIO_GOAL}; loading takes {load:.1f} times as long. The machine's load was "
        f"{row.load_average} when the measurement of the run began."
    )


def _milliseconds(spread: Spread) -> str:
    return f"{1000 * spread.median:.0f} [{1000 * spread.low:.0f}, {1000 * spread.high:.0f}]"


def _megabytes(size: int | None) -> str:
    return "–" if size is None else f"{size / 1e6:,.0f} MB"
