"""The section on methods at equal bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bitvox.benchmarks.experiments.real_rows import SpeechDocument, SpeechRow
from bitvox.benchmarks.experiments.results import read_document
from bitvox.benchmarks.experiments.tables import count, excludes_zero, origin, percent, points, table


def section(path: Path) -> str:
    """One table per test set."""
    document = read_document(path, SpeechDocument)
    rows = sorted(document.rows, key=_place)
    parts = ["## Methods at equal bytes", origin(document.provenance, document.rows), _how_to_read(rows)]
    for name in rows[0].scores if rows else ():
        parts += [f"### {name}: {document.provenance.data[name]}", _table(rows, name), _sentence(rows, name)]
    return "\n\n".join(parts)


def _place(row: SpeechRow) -> tuple[float, int]:
    """Full precision first, then the largest budget, the uniform row ahead of those it is the budget of."""
    return (-(row.anchor or 99), 0 if row.method != "myqasr" else 1)


def _how_to_read(rows: Sequence[SpeechRow]) -> str:
    tied = [row for row in rows if row.method == "myqasr" and row.tier == "default" and _is_whole(row.anchor)]
    uniform = {row.anchor: row for row in rows if row.method == "uniform"}
    moved = [
        _moved(row, uniform[row.anchor]) for row in tied if row.anchor in uniform and not row.unreachable
    ]
    text = (
        "The budget of a row is the size of the uniform bundle of that many bits; with a half, it lies "
        "half-way between two of them, where no uniform bundle is. "
        "`default` has a weight scale per output channel, `paper` one per linear layer, with positional "
        "convolution and head in float16 and counted as such: the tiers differ in the quantiser, and a gap "
        "between them is no merit of an allocation."
    )
    if moved:
        text += (
            " At the very size of a uniform bundle myQASR's walk passes next to that bundle: in the default "
            f"tier at most {max(moved)} of {sum(tied[0].widths.values())} sites have another width."
        )
    return text


def _is_whole(anchor: float | None) -> bool:
    return anchor is not None and float(anchor).is_integer()


def _moved(row: SpeechRow, uniform: SpeechRow) -> int:
    """Sites that have another width, at least: widths are compared as counts."""
    widths = set(row.widths) | set(uniform.widths)
    return sum(abs(row.widths.get(width, 0) - uniform.widths.get(width, 0)) for width in widths) // 2


def _table(rows: Sequence[SpeechRow], name: str) -> str:
    headers = (
        "budget of",
        "method",
        "order",
        "calibration",
        "tier",
        "bytes",
        "bits",
        "paper's MiB",
        "WER %",
        "WER − full precision",
        "CER %",
    )
    return table(headers, [_line(row, name) for row in rows])


def _line(row: SpeechRow, name: str) -> tuple[object, ...]:
    anchor = "" if row.anchor is None else f"{row.anchor:g} bits"
    options = (anchor, row.method, row.order or "", row.calibration or "", row.tier or "")
    if row.unreachable:
        return (*options, f"none: {row.unreachable}", *[""] * 5)
    scores = row.scores[name]
    return (
        *options,
        count(row.bytes),
        f"{row.average_bits:.2f}",
        f"{row.paper_mib:.2f}",
        percent(scores.words.rate),
        "" if row.method == "full precision" else points(scores.difference),
        percent(scores.characters.rate),
    )


def _sentence(rows: Sequence[SpeechRow], name: str) -> str:
    quantised = [row for row in rows if row.method != "full precision" and not row.unreachable]
    missing = sum(bool(row.unreachable) for row in rows)
    worse = [row for row in quantised if excludes_zero(row.scores[name].difference)]
    lower, equal, higher = _against_uniform(quantised, name)
    return (
        f"Of {len(quantised)} bundles {len(worse)} differ from full precision by more than chance "
        f"({missing} more configurations gave no bundle); of the default-tier myQASR bundles at the size of "
        f"a uniform one, {lower} have a lower word error rate than it, {equal} the same and {higher} a "
        "higher one, without correction for comparing so many."
    )


def _against_uniform(rows: Sequence[SpeechRow], name: str) -> tuple[int, int, int]:
    uniform = {row.anchor: row.scores[name].words.rate.percent for row in rows if row.method == "uniform"}
    gaps = [
        (row.scores[name].words.rate.percent or 0.0) - (uniform[row.anchor] or 0.0)
        for row in rows
        if row.method == "myqasr" and row.tier == "default" and row.anchor in uniform
    ]
    return sum(gap < 0 for gap in gaps), sum(gap == 0 for gap in gaps), sum(gap > 0 for gap in gaps)
