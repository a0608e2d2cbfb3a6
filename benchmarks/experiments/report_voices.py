"""The section on voices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bitvox.benchmarks.experiments.results import read_document
from bitvox.benchmarks.experiments.tables import count, excludes_zero, listed, origin, percent, points, table
from bitvox.benchmarks.experiments.voice_rows import PooledRow, VoiceRow, VoicesDocument


def section(path: Path) -> str:
    """Two tables: pooled by budget, and speaker by speaker."""
    document = read_document(path, VoicesDocument)
    parts = ["## One bundle per voice", origin(document.provenance, document.rows)]
    parts += [_pooled_table(document.summary), _pooled_sentence(document.rows, document.summary)]
    parts += [
        "Word error rate by speaker, %:",
        _speaker_table(document.rows),
        _speaker_sentence(document.rows),
    ]
    return "\n\n".join(parts)


def _pooled_table(rows: Sequence[PooledRow]) -> str:
    headers = (
        "budget, bytes",
        "bytes of the bundles",
        "bits wanted",
        "bits",
        "WER %",
        "CER %",
        "WER − full precision",
        "changed words %",
        "same text %",
    )
    lines: list[tuple[object, ...]] = [
        (
            count(row.budget),
            f"{count(row.smallest_bytes)} to {count(row.largest_bytes)}",
            f"{row.average_wanted:g}",
            f"{row.average_bits:.2f}",
            percent(row.words.rate),
            percent(row.characters.rate),
            points(row.difference),
            percent(row.agreement.rate),
            f"{row.identical_percent:.0f}",
        )
        for row in rows
    ]
    if rows:
        full = rows[0]
        words, characters = full.full_precision_words.rate, full.full_precision_characters.rate
        lines.append(("full precision", "", "", "32", percent(words), percent(characters), "", "", ""))
    return table(headers, lines)


def _pooled_sentence(rows: Sequence[VoiceRow], pooled: Sequence[PooledRow]) -> str:
    if not pooled:
        return "Not all cells are measured yet."
    under, tight = sum(row.under_budget for row in rows), sum(row.tight for row in rows)
    worse = [f"{row.average_wanted:g}" for row in pooled if excludes_zero(row.difference)]
    changed = (
        f"the word error rate differs from full precision by more than chance at {listed(worse)} bits"
        if worse
        else "at no budget does the word error rate differ from full precision by more than chance"
    )
    return (
        f"{under} of {len(rows)} bundles are at or under their budget and {tight} are within one bit of the "
        f"largest site ({count(rows[0].site_step)} bytes) of it; on {pooled[0].clips} held-out clips of "
        f"{pooled[0].speakers} speakers ({pooled[0].words.length} words) {changed}."
    )


def _speaker_table(rows: Sequence[VoiceRow]) -> str:
    averages = sorted({row.average_wanted for row in rows})
    cells = {(row.speaker, row.average_wanted): row for row in rows}
    lines = []
    for speaker in dict.fromkeys(row.speaker for row in rows):
        own = [cells.get((speaker, average)) for average in averages]
        first = next(row for row in own if row is not None)
        full = first.full_precision_words.rate.percent or 0.0
        rates = ["–" if row is None else f"{row.words.rate.percent or 0.0:.1f}" for row in own]
        lines.append(
            (speaker, first.calibrated_on, len(first.judged_on), first.words.length, f"{full:.1f}", *rates)
        )
    bits = [f"{average:g} bits" for average in averages]
    return table(("speaker", "calibrated on", "judged on", "words", "full precision", *bits), lines)


def _speaker_sentence(rows: Sequence[VoiceRow]) -> str:
    fewest, most = min(row.words.length for row in rows), max(row.words.length for row in rows)
    return (
        f"One speaker's held-out clips have {fewest} to {most} words, too few to compare speakers: read the "
        "pooled table."
    )
