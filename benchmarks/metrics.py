"""Word and character error rates, with intervals that know that clips of one speaker are alike.

Text is compared after `normalise`: Unicode NFKC, case folded, typographic apostrophes made plain,
everything that is not a letter, mark, digit or an apostrophe inside a word made a space, runs of spaces
made one. Numbers and spelling variants are left as they are.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import jiwer
import numpy as np
import numpy.typing as npt
from scipy.stats import beta

Counts = npt.NDArray[np.int64]

RESAMPLES = 2000
_Process = Callable[[list[str], list[str]], jiwer.WordOutput | jiwer.CharacterOutput]
_APOSTROPHES = re.compile("[\u2018\u2019\u02bc\uff07]")


def normalise(text: str) -> str:
    """The text as it is compared (see the module)."""
    text = _APOSTROPHES.sub("'", unicodedata.normalize("NFKC", text).casefold())
    kept = (letter if unicodedata.category(letter)[0] in "LMN" or letter == "'" else " " for letter in text)
    return " ".join(word.strip("'") for word in "".join(kept).split() if word.strip("'"))


@dataclass(frozen=True, eq=False)
class ErrorCounts:
    """Edits that turn each clip's reference into its hypothesis, one entry per clip.

    Attributes:
        substitutions, deletions, insertions: Edits of the clip [clips].
        length: Words or characters of the clip's reference [clips].
    """

    substitutions: Counts
    deletions: Counts
    insertions: Counts
    length: Counts

    @property
    def errors(self) -> Counts:
        """All edits of each clip [clips]."""
        return self.substitutions + self.deletions + self.insertions


@dataclass(frozen=True)
class Interval:
    """A value in percent and the ends of its 95 % interval; None where there is nothing to divide by."""

    percent: float | None
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.percent is None:
            return "not defined"
        return f"{self.percent:.2f} % [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class ErrorRate:
    """An error rate of a whole set, with the edits it is made of and the number of words or characters."""

    rate: Interval
    substitutions: int
    deletions: int
    insertions: int
    length: int


def count_words(references: Sequence[str], hypotheses: Sequence[str]) -> ErrorCounts:
    """Word edits of each clip, after normalisation (Levenshtein by jiwer)."""
    return _count(references, hypotheses, jiwer.process_words)


def count_characters(references: Sequence[str], hypotheses: Sequence[str]) -> ErrorCounts:
    """Character edits of each clip, after normalisation; a space is a character."""
    return _count(references, hypotheses, jiwer.process_characters)


def count_labels(references: Sequence[str], labels: Sequence[str]) -> ErrorCounts:
    """Of a classifier, whose transcript is one label: each clip is one word, right or substituted.

    Labels are compared as they are written, but for case and the space around them.
    """
    pairs = zip(references, labels, strict=True)
    wrong = np.array([one.strip().casefold() != other.strip().casefold() for one, other in pairs], np.int64)
    return ErrorCounts(wrong, np.zeros_like(wrong), np.zeros_like(wrong), np.ones_like(wrong))


def accuracy(counts: ErrorCounts, clusters: Sequence[Hashable], seed: int = 0) -> Interval:
    """Share of words without an error in percent, with the interval of `error_rate`."""
    found = error_rate(counts, clusters, seed).rate
    if found.percent is None or found.low is None or found.high is None:
        return found
    return Interval(100 - found.percent, 100 - found.high, 100 - found.low)


def error_rate(counts: ErrorCounts, clusters: Sequence[Hashable], seed: int = 0) -> ErrorRate:
    """Errors per reference word in percent, over the whole set.

    The interval is the percentile bootstrap over clusters (speakers), drawn with replacement (Bisani and
    Ney 2004, with speakers in the place of utterances).
    """
    errors, length = _by_cluster(counts.errors, clusters), _by_cluster(counts.length, clusters)
    draws = _draws(errors.size, seed)
    return ErrorRate(
        rate=_interval(errors.sum(), length.sum(), draws @ errors, draws @ length),
        substitutions=int(counts.substitutions.sum()),
        deletions=int(counts.deletions.sum()),
        insertions=int(counts.insertions.sum()),
        length=int(counts.length.sum()),
    )


def rate_difference(
    counts: ErrorCounts, baseline: ErrorCounts, clusters: Sequence[Hashable], seed: int = 0
) -> Interval:
    """Error rate minus that of the baseline on the same clips, in points; both see the same draws."""
    gain = _by_cluster(counts.errors - baseline.errors, clusters)
    length = _by_cluster(counts.length, clusters)
    draws = _draws(gain.size, seed)
    return _interval(gain.sum(), length.sum(), draws @ gain, draws @ length)


def no_regression_share(counts: ErrorCounts, baseline: ErrorCounts) -> float:
    """Share of clips, 0 to 1, with no more errors than the baseline makes on them."""
    return float(np.mean(counts.errors <= baseline.errors))


def identical_share(texts: Sequence[str], others: Sequence[str]) -> float:
    """Share of clips, 0 to 1, whose normalised transcripts are the same."""
    return float(
        np.mean([normalise(one) == normalise(other) for one, other in zip(texts, others, strict=True)])
    )


def word_count(text: str) -> int:
    """Words of a text, after normalisation."""
    return len(normalise(text).split())


def _count(references: Sequence[str], hypotheses: Sequence[str], process: _Process) -> ErrorCounts:
    result = process([normalise(text) for text in references], [normalise(text) for text in hypotheses])
    edits = np.array([_edits(chunks) for chunks in result.alignments], dtype=np.int64)
    length = np.array([len(reference) for reference in result.references], dtype=np.int64)
    return ErrorCounts(edits[:, 0], edits[:, 1], edits[:, 2], length)


def _edits(chunks: Sequence[jiwer.AlignmentChunk]) -> tuple[int, int, int]:
    edits = {"substitute": 0, "delete": 0, "insert": 0, "equal": 0}
    for chunk in chunks:
        edits[chunk.type] += max(
            chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx
        )
    return edits["substitute"], edits["delete"], edits["insert"]


def _by_cluster(values: Counts, clusters: Sequence[Hashable]) -> npt.NDArray[np.float64]:
    """Sum of the values of each cluster [clusters]."""
    order = {cluster: index for index, cluster in enumerate(dict.fromkeys(clusters))}
    index = np.array([order[cluster] for cluster in clusters], dtype=np.int64)
    sums = np.zeros(len(order))
    np.add.at(sums, index, values)
    return sums


def _draws(clusters: int, seed: int) -> npt.NDArray[np.float64]:
    """How often each cluster is drawn in each resample [resamples, clusters]."""
    counts = np.random.default_rng(seed).multinomial(
        clusters, np.full(clusters, 1 / clusters), size=RESAMPLES
    )
    return counts.astype(np.float64)


def _interval(
    errors: float, length: float, drawn_errors: npt.NDArray[np.float64], drawn_length: npt.NDArray[np.float64]
) -> Interval:
    if not length:
        return Interval(None, None, None)
    filled = drawn_length > 0
    low, high = np.percentile(100 * drawn_errors[filled] / drawn_length[filled], (2.5, 97.5))
    return Interval(100 * float(errors) / float(length), float(low), float(high))


def exact_share(hits: int, total: int) -> Interval:
    """A share in percent of independent trials, with the interval of Clopper and Pearson (1934)."""
    if not total:
        return Interval(None, None, None)
    low = beta.ppf(0.025, hits, total - hits + 1) if hits else 0.0
    high = beta.ppf(0.975, hits + 1, total - hits) if hits < total else 1.0
    return Interval(100 * hits / total, 100 * float(low), 100 * float(high))


def sign_flip(differences: Sequence[int]) -> float:
    """Two-sided p of the null that each cluster's difference could as well have had the other sign.

    Exact, over all assignments of signs (the paired randomisation test of Fisher 1935).
    """
    chances = {0: 1.0}
    for difference in differences:
        flipped: dict[int, float] = defaultdict(float)
        for total, chance in chances.items():
            flipped[total + difference] += chance / 2
            flipped[total - difference] += chance / 2
        chances = flipped
    seen = abs(sum(differences))
    return min(1.0, sum(chance for total, chance in chances.items() if abs(total) >= seen))


def geometric_change(values: Sequence[float], baseline: Sequence[float], seed: int = 0) -> Interval:
    """How far positive values lie above those of a baseline, in percent of it: the geometric mean over pairs.

    One pair a cluster; the interval resamples pairs.
    """
    logs = np.log(np.asarray(values, dtype=np.float64)) - np.log(np.asarray(baseline, dtype=np.float64))
    if not logs.size:
        return Interval(None, None, None)
    low, high = np.percentile(_draws(logs.size, seed) @ logs / logs.size, (2.5, 97.5))
    percent, low, high = (100 * float(np.expm1(one)) for one in (logs.mean(), low, high))
    return Interval(percent, low, high)


def by_cluster(values: Counts, clusters: Sequence[Hashable]) -> dict[Hashable, int]:
    """Sum of the values of each cluster, in the order of their first clips."""
    sums = _by_cluster(values, clusters)
    return {key: int(total) for key, total in zip(dict.fromkeys(clusters), sums, strict=True)}
