"""One way of calibrating against another, paired: speaker by speaker, on the same recordings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from bitvox.benchmarks import metrics
from bitvox.benchmarks.experiments.results import Rate, Schema

# The difference that a two-sided test at 5 % finds in 80 % of trials, over the width of a 95 % interval.
_DETECTABLE = (1.96 + 0.84) / (2 * 1.96)


@dataclass(frozen=True)
class Told:
    """What a model made of some recordings of one speaker: word errors, and KL(full precision || model)."""

    errors: int
    words: int
    divergence: float
    frames: int


class Contrast(Schema):
    """Models calibrated `on` something against models calibrated `against` something else.

    Attributes:
        people: Whose recordings both are judged on.
        words: Word error rate minus the other's, in points; the interval resamples speakers.
        divergence: Above the other's in percent, geometric mean over speakers; the interval resamples them.
        detectable_words, detectable_divergence: The true difference that a test of this size would find in
            80 % of trials, from the width of the interval.
    """

    corpus: str
    people: str
    method: str
    bits: float
    on: str
    against: str
    speakers: int
    pairs: int
    words: Rate
    detectable_words: float | None
    divergence: Rate
    detectable_divergence: float | None


Pair = tuple[str, Told, Told]


def contrast(
    pairs: Sequence[Pair], corpus: str, people: str, method: str, bits: float, on: str, against: str
) -> Contrast:
    """Pairs of (speaker, ours, theirs), each of the same recordings."""
    speakers = [speaker for speaker, _, _ in pairs]
    words = Rate.of(
        metrics.rate_difference(
            _counts(ours for _, ours, _ in pairs), _counts(theirs for _, _, theirs in pairs), speakers
        )
    )
    moved: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for speaker, ours, theirs in pairs:
        moved[speaker][0] += ours.divergence / ours.frames
        moved[speaker][1] += theirs.divergence / theirs.frames
    divergence = Rate.of(
        metrics.geometric_change([a for a, _ in moved.values()], [b for _, b in moved.values()])
    )
    return Contrast(
        corpus=corpus,
        people=people,
        method=method,
        bits=bits,
        on=on,
        against=against,
        speakers=len(moved),
        pairs=len(pairs),
        words=words,
        detectable_words=_detectable(words),
        divergence=divergence,
        detectable_divergence=_detectable(divergence),
    )


def _counts(told: Iterable[Told]) -> metrics.ErrorCounts:
    rows = list(told)
    errors, words = (np.array([getattr(one, name) for one in rows], np.int64) for name in ("errors", "words"))
    none = np.zeros_like(errors)
    return metrics.ErrorCounts(errors, none, none, words)


def _detectable(found: Rate) -> float | None:
    if found.low is None or found.high is None:
        return None
    return round(_DETECTABLE * (found.high - found.low), 4)
