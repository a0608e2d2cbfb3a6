"""The section on what was tried for rounding."""

from __future__ import annotations

from pathlib import Path

from bitvox.benchmarks.experiments.levers import LeverDocument
from bitvox.benchmarks.experiments.results import read_document
from bitvox.benchmarks.experiments.tables import count, origin, percent, table


def section(path: Path) -> str:
    """One table, a row a lever and width."""
    document = read_document(path, LeverDocument)
    own = {row.bits: row.divergence for row in document.rows if row.lever == "as compiled"}
    lines = []
    for row in document.rows:
        beside = f"{row.divergence / own[row.bits]:.2f}" if own.get(row.bits) else ""
        words = percent(row.words.rate)
        lines.append(
            (f"{row.bits:g}", row.lever, count(row.bytes), words, f"{row.divergence:.4f}", beside, row.note)
        )
    headers = ("bits", "rounding", "bytes", "WER %", "divergence", "as compiled = 1", "would take")
    return "\n\n".join(
        [
            "## Levers of rounding",
            origin(document.provenance, document.rows),
            "One width for all sites, rounded site after site; a row differs from the first of its width by "
            "one thing. Divergence is from full precision's own output: it tells small differences apart "
            "that error rates on so few words do not.",
            table(headers, lines),
        ]
    )
