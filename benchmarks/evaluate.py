"""Judge a bundle on recordings: error rates, what quantisation changed, what it hears in silence."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bitvox.benchmarks import metrics
from bitvox.benchmarks.dataset import Dataset, Utterance, clusters
from bitvox.benchmarks.inventions import is_silent, loops
from bitvox.compiler.frontend.audio import Clip, defect, read_clip
from bitvox.compiler.frontend.decoding import DecodingOptions
from bitvox.compiler.frontend.processor import AnyProcessor
from bitvox.errors import InputError
from bitvox.exporters.bundle import Bundle
from bitvox.exporters.manifest import short_digest
from bitvox.exporters.runner import Runner, open_runner
from bitvox.progress import Progress, logger, no_progress

FloatArray = npt.NDArray[np.float32]

# Root mean square of the faint noise: 60 dB below full scale, a quiet room.
_FAINT = 1e-3
_SILENT_SECONDS = (1, 3)


class Transcriber(Protocol):
    """A model that writes text: a `Runner`, or the full-precision `SpeechModel`."""

    def transcribe(self, samples: FloatArray, options: DecodingOptions | None = None) -> str:
        """Transcript of samples [T] at the model's rate, decoded as it is asked for."""
        ...


@dataclass(frozen=True)
class Transcript:
    """What was said in one clip, as far as known, whether it is silent, and what the models wrote."""

    path: str
    speaker: str | None
    seconds: float
    silent: bool
    reference: str | None
    bundle: str
    full_precision: str | None


@dataclass(frozen=True)
class Scores:
    """How one model did against what people said, where that is known.

    Attributes:
        words: Word error rate; `characters`: character error rate; neither of a classifier.
        words_on_silence: Words that it wrote for silence; None of a classifier, which always names a label.
        invented: Paths of the silent clips that it wrote words for; None of a classifier.
        loops: Paths of the clips whose transcript repeats itself where what was said, as far as known, does
            not; None of a classifier.
        accuracy: Share of clips with the right label, of a classifier.
    """

    words: metrics.ErrorRate | None
    characters: metrics.ErrorRate | None
    words_on_silence: int | None
    invented: tuple[str, ...] | None
    loops: tuple[str, ...] | None
    accuracy: metrics.Interval | None = None


@dataclass(frozen=True)
class Comparison:
    """The bundle beside the full-precision model.

    Attributes:
        word_error_rate: Errors of the bundle per word of the full-precision transcripts: label-free
            agreement. Of a classifier, whose transcript is one label, the share of labels that differ.
        identical: Share of clips with the same transcript, 0 to 1.
        difference: Word error rate of the bundle, or accuracy of a classifier, minus that of the
            full-precision model, in points, paired.
        no_regression: Share of clips with no more word errors than the full-precision model makes, 0 to 1.
    """

    word_error_rate: metrics.ErrorRate
    identical: float
    difference: metrics.Interval | None
    no_regression: float | None


@dataclass(frozen=True)
class EvalReport:
    """Everything that an evaluation found, with what it takes to repeat it.

    Attributes:
        bundle: Its folder; `bytes`: its size.
        data: Where the recordings came from; `digest`: SHA-256 over their samples and transcripts.
        clips: Recordings judged; `skipped`: recordings that could not be used; `seconds`: length of those
            judged; `silent`: of those judged, recordings with nothing to hear.
        calibrated_on: Of the recordings judged, those that calibrated the bundle, which flatter it.
        decoding: What was asked of both models' decoding.
        clustered_by: What the intervals resample: `speaker` or `clip`.
        scores: Of the bundle; `full_precision`: of the full-precision model; `comparison`: of the two.
        real_time_factor: Seconds of computing per second of audio, for the bundle, features and decoding
            included.
        transcripts: Clip by clip.
    """

    bundle: str
    bytes: int
    data: str
    digest: str
    clips: int
    skipped: int
    seconds: float
    silent: int
    calibrated_on: int
    decoding: DecodingOptions
    clustered_by: str
    scores: Scores
    full_precision: Scores | None
    comparison: Comparison | None
    real_time_factor: float
    transcripts: tuple[Transcript, ...]

    def to_json(self) -> str:
        """The report as one JSON document."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, indent=2)


def evaluate(
    bundle: Bundle,
    dataset: Dataset,
    full_precision: Transcriber | None = None,
    progress: Progress = no_progress,
    num_threads: int = 1,
    options: DecodingOptions | None = None,
) -> EvalReport:
    """Transcribe every recording with the bundle, and with the full-precision model where given, and compare.

    One clip at a time, both models decoding by the same options. A recording that cannot be read is skipped
    with a warning. Raises InputError when none is left, when there are neither transcripts nor a
    full-precision model to judge by, or when the options ask for what the model cannot do.
    """
    options = options or DecodingOptions()
    bundle.manifest.processor.check(options)
    _check_transcripts(dataset, full_precision)
    runner = open_runner(bundle, num_threads)
    runner.check_beams(options)
    heard = _listen(runner, dataset, full_precision, options, progress)
    if not heard.transcripts:
        total = len(dataset.utterances)
        raise InputError(
            f"{dataset.origin}: none of its {total} recordings can be used (each is named above)"
        )
    rate = runner.processor.sampling_rate
    seconds = sum(entry.seconds for entry in heard.transcripts)
    scored = [entry.bundle for entry in heard.transcripts]
    return EvalReport(
        bundle=str(bundle.folder),
        bytes=bundle.bytes,
        data=str(dataset.origin),
        digest=heard.digest,
        clips=len(scored),
        skipped=len(dataset.utterances) - len(scored),
        seconds=seconds,
        silent=sum(entry.silent for entry in heard.transcripts),
        calibrated_on=heard.calibrated_on,
        decoding=options,
        clustered_by=heard.clustered_by,
        scores=_scores(runner, scored, heard, rate),
        full_precision=_full_precision_scores(full_precision, heard, rate),
        comparison=_comparison(heard) if full_precision else None,
        real_time_factor=heard.computing / seconds,
        transcripts=heard.transcripts,
    )


def _check_transcripts(dataset: Dataset, full_precision: Transcriber | None) -> None:
    """Refuse recordings that there is nothing to judge by, and say why error rates will be missing."""
    lacking = [utterance for utterance in dataset.utterances if utterance.text is None]
    if not lacking:
        return
    total = len(dataset.utterances)
    some = f"no transcript of {lacking[0].path} ({len(lacking)} of {total} recordings have none)"
    what = f"{dataset.origin}: {'no transcripts' if len(lacking) == total else some}"
    if full_precision is None:
        raise InputError(f"{what}; judging without them needs the full-precision model")
    if len(lacking) < total:
        logger.warning("%s: only agreement with full precision is judged", what)


@dataclass(frozen=True)
class _Heard:
    """Transcripts of the usable recordings, and what was counted on the way.

    Attributes:
        clusters: What intervals resample, per recording; `clustered_by`: its name.
        computing: Seconds that the bundle computed.
        calibrated_on: Recordings that calibrated the bundle.
        classifier: Whether transcripts are labels.
        options: How they were decoded.
    """

    transcripts: tuple[Transcript, ...]
    clusters: list[Hashable]
    clustered_by: str
    digest: str
    computing: float
    calibrated_on: int
    classifier: bool
    options: DecodingOptions

    def count(self, references: Sequence[str], texts: Sequence[str]) -> metrics.ErrorCounts:
        """Word errors of each recording."""
        return (metrics.count_labels if self.classifier else metrics.count_words)(references, texts)

    @property
    def references(self) -> list[str] | None:
        """What people said, where all of it is known."""
        texts = [entry.reference for entry in self.transcripts if entry.reference is not None]
        return texts if len(texts) == len(self.transcripts) else None


def _listen(
    runner: Runner,
    dataset: Dataset,
    full_precision: Transcriber | None,
    options: DecodingOptions,
    progress: Progress,
) -> _Heard:
    transcripts, used, computing, known = [], [], 0.0, 0
    calibration = set(runner.bundle.manifest.calibrated_on)
    digest = hashlib.sha256()
    rate = runner.processor.sampling_rate
    total = len(dataset.utterances)
    for index, utterance in enumerate(dataset.utterances):
        progress("evaluate", index, total)
        clip = _read(utterance, runner.processor)
        if clip is None:
            continue
        known += short_digest(clip) in calibration
        started = time.perf_counter()
        text = runner.transcribe(clip.samples, options)
        computing += time.perf_counter() - started
        baseline = full_precision.transcribe(clip.samples, options) if full_precision else None
        said = str(utterance.path), utterance.speaker, clip.seconds, is_silent(clip.samples, rate)
        transcripts.append(Transcript(*said, utterance.text, text, baseline))
        used.append(utterance)
        digest.update(f"{clip.digest}\t{utterance.speaker}\t{utterance.text}\n".encode())
    progress("evaluate", total, total)
    if known:
        logger.warning(
            "%s: %d of the %d recordings calibrated the bundle and flatter it; judge on others",
            dataset.origin,
            known,
            len(used),
        )
    keys, clustered_by = clusters(used)
    classifier = runner.bundle.manifest.family == "classifier"
    counted = digest.hexdigest(), computing, known
    return _Heard(tuple(transcripts), keys, clustered_by, *counted, classifier, options)


def _read(utterance: Utterance, processor: AnyProcessor) -> Clip | None:
    try:
        clip = read_clip(utterance.path, processor.sampling_rate)
    except InputError as error:
        logger.warning("skipped %s", error)
        return None
    # Digital silence is a fair question to a recogniser; a clip shorter than one frame is none.
    if clip.samples.size < processor.minimum_samples:
        logger.warning("skipped %s: %s", utterance.path, defect(clip, processor.minimum_samples))
        return None
    return clip


def _scores(model: Transcriber, texts: list[str], heard: _Heard, rate: int) -> Scores:
    if heard.classifier:
        known = heard.references
        right = metrics.accuracy(heard.count(known, texts), heard.clusters) if known is not None else None
        return Scores(None, None, None, None, None, right)
    made_up = words_on_silence(model, rate, heard.options), _invented(heard, texts), _loops(heard, texts)
    if heard.references is None:
        return Scores(None, None, *made_up)
    words = metrics.error_rate(metrics.count_words(heard.references, texts), heard.clusters)
    characters = metrics.error_rate(metrics.count_characters(heard.references, texts), heard.clusters)
    return Scores(words, characters, *made_up)


def _invented(heard: _Heard, texts: list[str]) -> tuple[str, ...]:
    pairs = zip(heard.transcripts, texts, strict=True)
    return tuple(entry.path for entry, text in pairs if entry.silent and metrics.word_count(text))


def _loops(heard: _Heard, texts: list[str]) -> tuple[str, ...]:
    pairs = zip(heard.transcripts, texts, strict=True)
    return tuple(entry.path for entry, text in pairs if loops(text) and not loops(entry.reference or ""))


def _full_precision_scores(model: Transcriber | None, heard: _Heard, rate: int) -> Scores | None:
    return _scores(model, _full_precision_texts(heard), heard, rate) if model else None


def _full_precision_texts(heard: _Heard) -> list[str]:
    return [entry.full_precision or "" for entry in heard.transcripts]


def _comparison(heard: _Heard) -> Comparison:
    texts, baseline = [entry.bundle for entry in heard.transcripts], _full_precision_texts(heard)
    agreement = metrics.error_rate(heard.count(baseline, texts), heard.clusters)
    identical = metrics.identical_share(texts, baseline)
    if heard.references is None:
        return Comparison(agreement, identical, None, None)
    ours, theirs = (heard.count(heard.references, written) for written in (texts, baseline))
    more, less = (theirs, ours) if heard.classifier else (ours, theirs)
    return Comparison(
        word_error_rate=agreement,
        identical=identical,
        difference=metrics.rate_difference(more, less, heard.clusters),
        no_regression=metrics.no_regression_share(ours, theirs),
    )


def words_on_silence(model: Transcriber, rate: int, options: DecodingOptions | None = None) -> int:
    """Words written for one and three seconds of digital silence and of faint white noise: all invented."""
    noise = np.random.default_rng(0)
    clips = []
    for seconds in _SILENT_SECONDS:
        samples = seconds * rate
        clips += [np.zeros(samples), _FAINT * noise.standard_normal(samples)]
    return sum(metrics.word_count(model.transcribe(clip.astype(np.float32), options)) for clip in clips)
