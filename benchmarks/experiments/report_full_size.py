"""The section on models of full size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bitvox.benchmarks.experiments.full_size import (
    MEMORY_LIMIT,
    MINUTES_LIMIT,
    RATIO_GOAL,
    FullSizeDocument,
    FullSizeRow,
)
from bitvox.benchmarks.experiments.results import read_document
from bitvox.benchmarks.experiments.tables import count, origin, table
from bitvox.benchmarks.latency import Spread


def section(path: Path) -> str:
    """Compiling, running beside full precision, and what was reached where."""
    document = read_document(path, FullSizeDocument)
    parts = ["## Models of full size", origin(document.provenance, document.rows)]
    parts += [compile_table(document.rows), compile_sentence(document.rows)]
    parts += [_run_table(document.rows), _run_sentence(document.rows)]
    parts += [_kernels_table(document.rows)]
    return "\n\n".join(parts)


def compile_table(rows: Sequence[FullSizeRow]) -> str:
    """A line a model: what came out, what making it took, and its time beside full precision's."""
    heads = (
        "structure",
        "M parameters",
        "budget",
        "bytes",
        "bits",
        "compile, s",
        "of it computing",
        "peak GB",
    )
    return table(
        (*heads, "time / fp32"),
        [
            (
                row.structure,
                f"{row.parameters / 1e6:.1f}",
                count(row.budget),
                count(row.bytes),
                f"{row.average_bits:.2f}",
                f"{row.compile_seconds:.0f}",
                f"{row.compile_cpu_seconds:.0f}",
                "–" if row.compile_peak_memory is None else f"{row.compile_peak_memory / 1e9:.1f}",
                _ratio(row),
            )
            for row in rows
        ],
    )


def compile_sentence(rows: Sequence[FullSizeRow]) -> str:
    """How many kept to budget, memory and time."""
    fitting = sum(row.bytes <= row.budget for row in rows)
    small = sum((row.compile_peak_memory or MEMORY_LIMIT + 1) <= MEMORY_LIMIT for row in rows)
    quick = sum(row.compile_seconds <= 60 * MINUTES_LIMIT for row in rows)
    return (
        f"{fitting} of {len(rows)} bundles are at or under their budget; {small} were compiled "
        f"within {MEMORY_LIMIT / 1e9:g} GB and {quick} within {MINUTES_LIMIT} minutes. Other work may have "
        "shared the machine's cores: wall time is an upper bound, and what all threads computed is beside it."
    )


def _run_table(rows: Sequence[FullSizeRow]) -> str:
    heads = (
        "structure",
        "form",
        "bytes",
        "load, ms",
        "first run, ms",
        "steady run, ms",
        "MB loaded",
        "MB at peak",
    )
    forms = (
        (row, form) for row in rows for form in (("bundle", row.bundle), ("float32", row.full_precision))
    )
    return table(
        heads,
        [
            (
                row.structure,
                name,
                count(run.bytes),
                *(_milliseconds(spread) for spread in (run.load, run.first, run.steady)),
                _megabytes(run.resident_memory),
                _megabytes(run.peak_memory),
            )
            for row, (name, run) in forms
        ],
    )


def _run_sentence(rows: Sequence[FullSizeRow]) -> str:
    quick = sum(row.ratio.median <= RATIO_GOAL for row in rows)
    audio = ", ".join(
        dict.fromkeys(f"{row.audio_seconds:g} s of audio, {row.threads} thread" for row in rows)
    )
    loads = ", ".join(f"{row.load_average} for {row.structure}" for row in rows)
    return (
        f"Runs are of {audio}; Whisper's encoder always reads a window of 30 s. {quick} of {len(rows)} run "
        f"in {RATIO_GOAL} of the time of float32 ONNX Runtime or less (medians of {rows[0].ratio.count} "
        f"rounds, quartiles in brackets). The machine's load when a run began to be measured: {loads}."
    )


def _kernels_table(rows: Sequence[FullSizeRow]) -> str:
    found = [
        (
            row.structure,
            ", ".join(f"{number} × {name}" for name, number in sorted(row.kernels.items())),
            f"{row.parity:.1e}",
        )
        for row in rows
    ]
    return table(("structure", "kernels reached", "worst site against the quantised torch model"), found)


def _ratio(row: FullSizeRow) -> str:
    return f"{row.ratio.median:.2f} [{row.ratio.low:.2f}, {row.ratio.high:.2f}]"


def _milliseconds(spread: Spread) -> str:
    return f"{1000 * spread.median:.0f} [{1000 * spread.low:.0f}, {1000 * spread.high:.0f}]"


def _megabytes(size: int | None) -> str:
    return "–" if size is None else f"{size / 1e6:,.0f}"
