"""Rows of the experiment on voices: one per speaker and budget, and one per budget over all speakers."""

from __future__ import annotations

from collections.abc import Sequence

from bitvox.benchmarks import metrics
from bitvox.benchmarks.experiments.results import Cell, Document, Errors, Rate, Schema


class ClipText(Schema):
    """One held-out recording: what was said, and what the bundle and full precision wrote."""

    recording: str
    reference: str
    bundle: str
    full_precision: str


class VoiceRow(Cell):
    """One speaker, one budget.

    Attributes:
        compile_command, eval_command: What makes these numbers by hand; HELDOUT is a table of `judged_on`.
        average_wanted: That the budget was chosen for; `average_bits`: that the bundle has.
        site_step: Most bytes that one bit of one site takes; `unit_step`: of one share group, which loses its
            bits together.
        tight: Whether it is no further under its budget than `site_step`.
        calibrated_on, judged_on: Recordings; none is in both.
        words, full_precision_words: Edits on `judged_on`, substitutions, deletions, insertions and words.
    """

    compile_command: str
    eval_command: str
    speaker: str
    average_wanted: float
    budget: int
    bytes: int
    average_bits: float
    site_step: int
    unit_step: int
    under_budget: bool
    tight: bool
    parity: float
    compile_seconds: float
    calibrated_on: int
    judged_on: tuple[ClipText, ...]
    words: Errors
    characters: Errors
    full_precision_words: Errors
    words_on_silence: int


class PooledRow(Schema):
    """One budget, all speakers: corpus-level rates, intervals by bootstrap over speakers."""

    average_wanted: float
    budget: int
    largest_bytes: int
    smallest_bytes: int
    average_bits: float
    speakers: int
    clips: int
    all_under_budget: bool
    all_tight: bool
    words: Errors
    characters: Errors
    full_precision_words: Errors
    full_precision_characters: Errors
    difference: Rate
    agreement: Errors
    identical_percent: float
    no_regression_percent: float


class VoicesDocument(Document[VoiceRow, PooledRow]):
    """`voices.json`."""


def pooled(rows: Sequence[VoiceRow]) -> tuple[PooledRow, ...]:
    """One row per budget, in the order of the budgets."""
    wanted = sorted({row.average_wanted for row in rows})
    return tuple(_pool([row for row in rows if row.average_wanted == average]) for average in wanted)


def _pool(rows: Sequence[VoiceRow]) -> PooledRow:
    heard = [(row.speaker, clip) for row in rows for clip in row.judged_on]
    speakers = [speaker for speaker, _ in heard]
    said = [clip.reference for _, clip in heard]
    ours = [clip.bundle for _, clip in heard]
    theirs = [clip.full_precision for _, clip in heard]
    our_words, their_words = metrics.count_words(said, ours), metrics.count_words(said, theirs)
    return PooledRow(
        average_wanted=rows[0].average_wanted,
        budget=rows[0].budget,
        largest_bytes=max(row.bytes for row in rows),
        smallest_bytes=min(row.bytes for row in rows),
        average_bits=sum(row.average_bits for row in rows) / len(rows),
        speakers=len(set(speakers)),
        clips=len(heard),
        all_under_budget=all(row.under_budget for row in rows),
        all_tight=all(row.tight for row in rows),
        words=Errors.of(metrics.error_rate(our_words, speakers)),
        characters=Errors.of(metrics.error_rate(metrics.count_characters(said, ours), speakers)),
        full_precision_words=Errors.of(metrics.error_rate(their_words, speakers)),
        full_precision_characters=Errors.of(
            metrics.error_rate(metrics.count_characters(said, theirs), speakers)
        ),
        difference=Rate.of(metrics.rate_difference(our_words, their_words, speakers)),
        agreement=Errors.of(metrics.error_rate(metrics.count_words(theirs, ours), speakers)),
        identical_percent=round(100 * metrics.identical_share(ours, theirs), 4),
        no_regression_percent=round(100 * metrics.no_regression_share(our_words, their_words), 4),
    )
