"""Rows of the experiment on real speech: one per configuration, with error rates on every test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bitvox.benchmarks import metrics
from bitvox.benchmarks.dataset import Dataset, clusters
from bitvox.benchmarks.experiments.cells import Outcome
from bitvox.benchmarks.experiments.results import Cell, Document, Errors, Rate, Schema


class SetScores(Schema):
    """One configuration on one test set.

    Attributes:
        difference: Word error rate minus that of full precision on the same clips, in points; both see the
            same bootstrap draws of speakers.
        identical_percent: Clips with the transcript of full precision.
        no_regression_percent: Clips with no more word errors than full precision makes.
    """

    clips: int
    speakers: int
    words: Errors
    characters: Errors
    difference: Rate
    identical_percent: float
    no_regression_percent: float


class SpeechRow(Cell):
    """One configuration.

    Attributes:
        method: `full precision`, `uniform` or `myqasr`; the options of the compile follow, where it has any.
        anchor: Average width of the uniform plan whose bytes are the budget; between two widths, half-way.
        command: What compiles this bundle; CLIPS stands for the calibration clips.
        unreachable: Why there is no bundle, mostly that the smallest is larger; all is zero then.
        paper_mib: Size by the accounting of the paper's figure, for comparison with it alone.
        scores: Test set -> error rates.
        texts: Test set -> transcripts, of full precision alone: what the others are compared with.
    """

    method: str
    order: str | None = None
    calibration: str | None = None
    tier: str | None = None
    anchor: float | None = None
    command: str | None = None
    budget: int | None = None
    unreachable: str | None = None
    bytes: int
    paper_mib: float
    average_bits: float
    widths: dict[str, int]
    scores: dict[str, SetScores]
    texts: dict[str, tuple[str, ...]]
    compile_seconds: float
    evaluate_seconds: float


class SpeechDocument(Document[SpeechRow, Schema]):
    """`real_speech.json`."""


def score(
    outcome: Outcome, datasets: Mapping[str, Dataset], baseline: Mapping[str, Sequence[str]]
) -> dict[str, SetScores]:
    """Scores of what a cell wrote, beside the texts of full precision."""
    return {name: _score(datasets[name], texts, baseline[name]) for name, texts in outcome.texts}


def _score(dataset: Dataset, ours: Sequence[str], theirs: Sequence[str]) -> SetScores:
    said = [utterance.text or "" for utterance in dataset.utterances]
    speakers, _ = clusters(dataset.utterances)
    our_words, their_words = metrics.count_words(said, ours), metrics.count_words(said, theirs)
    characters = metrics.count_characters(said, ours)
    return SetScores(
        clips=len(said),
        speakers=len(set(speakers)),
        words=Errors.of(metrics.error_rate(our_words, speakers)),
        characters=Errors.of(metrics.error_rate(characters, speakers)),
        difference=Rate.of(metrics.rate_difference(our_words, their_words, speakers)),
        identical_percent=round(100 * metrics.identical_share(ours, theirs), 4),
        no_regression_percent=round(100 * metrics.no_regression_share(our_words, their_words), 4),
    )
