"""Error rates against counts done by hand, and intervals against what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from bitvox.benchmarks import metrics
from bitvox.benchmarks.metrics import (
    ErrorCounts,
    accuracy,
    count_characters,
    count_labels,
    count_words,
    error_rate,
    identical_share,
    no_regression_share,
    normalise,
    rate_difference,
)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("It's  TWENTY-ONE, o'clock!", "it's twenty one o'clock"),
        ("‘don’t’", "don't"),
        ("rock 'n' roll", "rock n roll"),
        ("STRASSE Straße", "strasse strasse"),
        ("ﬁn Ａ", "fin a"),
        ("مَرحبا، نَعَم", "مَرحبا نَعَم"),
        ("' -- '", ""),
        ("7 km\n", "7 km"),
    ],
)
def test_normalisation(text: str, same: str) -> None:
    assert normalise(text) == same
    assert normalise(same) == same


def test_words_are_counted_clip_by_clip() -> None:
    counts = count_words(["one two three", "", "Go!", "yes"], ["one too three four", "er um", "go", ""])
    assert counts.substitutions.tolist() == [1, 0, 0, 0]
    assert counts.insertions.tolist() == [1, 2, 0, 0]
    assert counts.deletions.tolist() == [0, 0, 0, 1]
    assert counts.length.tolist() == [3, 0, 1, 1]
    assert error_rate(counts, [0, 1, 2, 3]).rate.percent == pytest.approx(100)


def test_characters_count_spaces() -> None:
    counts = count_characters(["ab c"], ["abc"])
    assert counts.deletions.tolist() == [1]
    assert counts.length.tolist() == [4]


def random_counts(
    seed: int, speakers: int = 12, clips: int = 20, spread: float = 0.3
) -> tuple[ErrorCounts, list[int]]:
    generator = np.random.default_rng(seed)
    rates = np.clip(0.3 + spread * generator.standard_normal(speakers), 0.02, 0.9)
    length = generator.integers(1, 12, size=(speakers, clips))
    errors = generator.binomial(length, rates[:, None])
    none = np.zeros(speakers * clips, dtype=np.int64)
    counts = ErrorCounts(errors.ravel(), none, none, length.ravel())
    return counts, [speaker for speaker in range(speakers) for _ in range(clips)]


def test_the_interval_is_that_of_a_plain_bootstrap_over_speakers() -> None:
    counts, speakers = random_counts(1)
    found = error_rate(counts, speakers).rate
    generator = np.random.default_rng(99)
    errors, length = counts.errors.reshape(12, -1).sum(1), counts.length.reshape(12, -1).sum(1)
    drawn = [generator.integers(0, 12, 12) for _ in range(4000)]
    low, high = np.percentile([100 * errors[d].sum() / length[d].sum() for d in drawn], (2.5, 97.5))
    assert found.percent == pytest.approx(100 * errors.sum() / length.sum())
    assert found.low == pytest.approx(low, abs=1.2)
    assert found.high == pytest.approx(high, abs=1.2)


def test_speakers_who_differ_widen_the_interval() -> None:
    counts, speakers = random_counts(2)
    by_speaker, by_clip = error_rate(counts, speakers).rate, error_rate(counts, range(len(speakers))).rate
    assert by_speaker.high - by_speaker.low > 1.5 * (by_clip.high - by_clip.low)


def test_intervals_are_the_same_each_time() -> None:
    counts, speakers = random_counts(3)
    assert error_rate(counts, speakers) == error_rate(counts, speakers)


def test_pairing_makes_a_small_difference_visible() -> None:
    baseline, speakers = random_counts(4)
    worse = ErrorCounts(
        baseline.substitutions,
        baseline.deletions,
        baseline.insertions + (np.arange(240) % 8 == 0),
        baseline.length,
    )
    difference = rate_difference(worse, baseline, speakers)
    assert difference.percent == pytest.approx(100 * 30 / baseline.length.sum())
    assert difference.low > 0
    alone = error_rate(worse, speakers).rate
    assert alone.low < error_rate(baseline, speakers).rate.percent


def test_a_set_without_words_has_no_rate() -> None:
    rate = error_rate(count_words(["", ""], ["a", ""]), [0, 1])
    assert rate.rate.percent is None
    assert rate.insertions == 1
    assert str(rate.rate) == "not defined"


def test_shares() -> None:
    references = ["a b", "c d", "e f"]
    ours, theirs = ["a b", "c x", "x x"], ["a x", "c x", "e f"]
    share = no_regression_share(count_words(references, ours), count_words(references, theirs))
    assert share == pytest.approx(2 / 3)
    assert identical_share(["A b", "x"], ["a  B", "y"]) == pytest.approx(0.5)
    assert metrics.word_count(" A, b-c ' ") == 3


def test_labels_are_right_or_wrong_as_a_whole() -> None:
    counts = count_labels(["zoom_in", "yes", "+"], ["zoom_out", " Yes", "-"])
    assert counts.errors.tolist() == [1, 0, 1]
    assert counts.length.tolist() == [1, 1, 1]


def test_accuracy_is_what_errors_leave() -> None:
    counts = count_labels(["a"] * 4, ["a", "a", "b", "a"])
    speakers = ["ann", "ann", "ben", "ben"]
    errors, found = error_rate(counts, speakers).rate, accuracy(counts, speakers)
    assert (found.percent, found.low, found.high) == (75, 50, 100)
    assert (errors.percent, errors.low, errors.high) == (25, 0, 50)


def test_exact_interval_of_a_share() -> None:
    found = metrics.exact_share(9, 10)
    assert (found.percent, found.low, found.high) == pytest.approx((90, 55.498, 99.747), abs=1e-3)
    nothing, all_of_it = metrics.exact_share(0, 20), metrics.exact_share(20, 20)
    assert (nothing.low, all_of_it.high) == (0, 100)
    assert nothing.high == pytest.approx(100 - (all_of_it.low or 0)) == pytest.approx(16.843, abs=1e-3)
    assert metrics.exact_share(0, 0).percent is None


def test_sign_flips_are_counted_exactly() -> None:
    assert metrics.sign_flip([1, 1, 1, 1, 1]) == pytest.approx(2 / 32)
    assert metrics.sign_flip([3, -3]) == 1
    assert metrics.sign_flip([0, 0]) == metrics.sign_flip([]) == 1
    differences = [4, -1, 2, 0, 7, 3]
    flips = np.array(np.meshgrid(*[[-1, 1]] * 6)).reshape(6, -1).T @ differences
    assert metrics.sign_flip(differences) == pytest.approx(np.mean(np.abs(flips) >= 15))


def test_change_of_positive_values_is_their_geometric_mean() -> None:
    found = metrics.geometric_change([2.0, 8.0], [1.0, 16.0])
    assert found.percent == pytest.approx(0)
    assert (found.low, found.high) == pytest.approx((-50, 100))
    assert metrics.geometric_change([3.0, 6.0], [2.0, 4.0]).percent == pytest.approx(50)
    assert metrics.geometric_change([], []).percent is None
