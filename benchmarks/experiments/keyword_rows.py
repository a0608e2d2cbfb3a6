"""Rows of the experiment on keywords: one a speaker, draw and plan; and each condition over all speakers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from bitvox.benchmarks import metrics
from bitvox.benchmarks.experiments.results import Cell, Document, Rate, Schema

Source = Literal["own", "other", "mix", "none"]


class KeywordRow(Cell):
    """One speaker's judged clips of one draw, heard by one model.

    Attributes:
        source: Who the model was calibrated on, with that many `clips`; `none` also of full precision.
        method: As `bitvox compile` takes it, or `full precision`.
        bits: Average whose bytes are the budget.
        right: A digit for each judged clip, in the order of the keywords: 1 where it was recognised.
        divergence: KL(full precision || row), mean over the clips.
    """

    speaker: str
    draw: int
    source: Source
    clips: int
    method: str = "full precision"
    order: str | None = None
    bits: float | None = None
    bytes: int = 0
    average_bits: float = 32.0
    right: str
    divergence: float

    @property
    def condition(self) -> tuple[int, str, str | None, float | None]:
        """What rows of several sources have in common when they are compared."""
        return self.clips, self.method, self.order, self.bits


class Contrast(Schema):
    """Rows against others of the same speakers and draws, on the same clips.

    Attributes:
        difference: Accuracy minus theirs, in points; its interval resamples speakers.
        p: Of the exact sign-flip test over speakers.
        divergence: Above theirs in percent, geometric mean over speakers; its interval resamples speakers.
    """

    difference: Rate
    p: float
    divergence: Rate


class PooledRow(Schema):
    """One condition and source over all speakers and finished draws.

    Attributes:
        accuracy: With the exact interval of Clopper and Pearson, as if clips were independent.
        clustered: The same with an interval that resamples speakers.
        loss: Accuracy minus that of full precision on the same clips, in points; over speakers.
        contrasts: Of `own`: another source, or of `auto` an order of myQASR -> the comparison with it.
    """

    source: Source
    clips: int
    method: str
    order: str | None
    bits: float | None
    bytes: int
    average_bits: float
    speakers: int
    draws: int
    judged: int
    accuracy: Rate
    clustered: Rate
    loss: Rate
    divergence: float
    contrasts: dict[str, Contrast]

    @property
    def condition(self) -> tuple[int, str, str | None, float | None]:
        """As of a row."""
        return self.clips, self.method, self.order, self.bits


class KeywordsDocument(Document[KeywordRow, PooledRow]):
    """`keywords.json`."""


_Place = tuple[str, int]
_Group = dict[_Place, KeywordRow]


def pooled(rows: Sequence[KeywordRow]) -> Iterator[PooledRow]:
    """One row for each condition and source, in the order of the rows, of places that have all of them."""
    groups: dict[tuple[Source, object], _Group] = defaultdict(dict)
    for row in _finished(rows):
        groups[row.source, row.condition][row.speaker, row.draw] = row
    full = next((group for group in groups.values() if next(iter(group.values())).bits is None), {})
    for group in groups.values():
        others = {name: other for other in groups.values() if (name := _compared(group, other))}
        yield _pool(group, full, others)


def _finished(rows: Sequence[KeywordRow]) -> list[KeywordRow]:
    """Rows without those of the speaker that a run was stopped at."""
    kinds = {row.key: (row.clips, row.bits is None) for row in rows}
    sizes = Counter((kinds[row.key], row.bits, row.speaker, row.draw) for row in rows)
    most = {kind: max(size for (own, *_), size in sizes.items() if own == kind) for kind in kinds.values()}
    return [
        row for row in rows if sizes[kinds[row.key], row.bits, row.speaker, row.draw] == most[kinds[row.key]]
    ]


def _compared(group: _Group, other: _Group) -> str | None:
    """What a group of calibration on the speaker is compared with another one as, if it is."""
    ours, theirs = next(iter(group.values())), next(iter(other.values()))
    if ours.source != "own" or ours.bits != theirs.bits:
        return None
    if theirs.source == "none" and theirs.method == ours.method:
        return "none"
    if theirs.source in ("other", "mix") and theirs.condition == ours.condition:
        return theirs.source
    if ours.method == "auto" and theirs.source == "own" and theirs.clips == ours.clips:
        return f"myqasr {theirs.order}" if theirs.method == "myqasr" else None
    return None


def _pool(group: _Group, full: _Group, others: dict[str, _Group]) -> PooledRow:
    first = next(iter(group.values()))
    counts, speakers = _counts(group)
    right, judged = int(counts.length.sum() - counts.errors.sum()), int(counts.length.sum())
    return PooledRow(
        source=first.source,
        clips=first.clips,
        method=first.method,
        order=first.order,
        bits=first.bits,
        bytes=max(row.bytes for row in group.values()),
        average_bits=round(float(np.mean([row.average_bits for row in group.values()])), 4),
        speakers=len({speaker for speaker, _ in group}),
        draws=len({draw for _, draw in group}),
        judged=judged,
        accuracy=Rate.of(metrics.exact_share(right, judged)),
        clustered=Rate.of(metrics.accuracy(counts, speakers)),
        loss=_loss(group, full),
        divergence=round(float(np.mean([row.divergence for row in group.values()])), 6),
        contrasts={name: _contrast(group, other) for name, other in others.items()},
    )


def _loss(group: _Group, full: _Group) -> Rate:
    ours, speakers = _counts(group)
    theirs, _ = _counts({place: full[place] for place in group})
    return Rate.of(metrics.rate_difference(theirs, ours, speakers))


def _contrast(group: _Group, other: _Group) -> Contrast:
    """On the places that both have."""
    ours = {place: row for place, row in group.items() if place in other}
    theirs = {place: other[place] for place in ours}
    (our_counts, speakers), (their_counts, _) = _counts(ours), _counts(theirs)
    gains = metrics.by_cluster(their_counts.errors - our_counts.errors, speakers)
    return Contrast(
        difference=Rate.of(metrics.rate_difference(their_counts, our_counts, speakers)),
        p=round(metrics.sign_flip(list(gains.values())), 6),
        divergence=Rate.of(metrics.geometric_change(_divergences(ours), _divergences(theirs))),
    )


def _divergences(group: _Group) -> list[float]:
    """Of each speaker, over its draws; of full precision, which has none, nothing."""
    found: dict[str, list[float]] = defaultdict(list)
    for (speaker, _), row in group.items():
        found[speaker].append(row.divergence)
    return [float(np.mean(values)) for values in found.values() if min(values) > 0]


def _counts(group: _Group) -> tuple[metrics.ErrorCounts, list[str]]:
    digits = "".join(row.right for row in group.values())
    wrong = np.array([digit == "0" for digit in digits], dtype=np.int64)
    none = np.zeros_like(wrong)
    speakers = [speaker for (speaker, _), row in group.items() for _ in row.right]
    return metrics.ErrorCounts(wrong, none, none, np.ones_like(wrong)), speakers
