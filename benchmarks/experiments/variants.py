"""The machinery of ablations: variants of a request, each on clips drawn anew, measured from scratch.

A study is a set of variants of which one is the reference that the others are compared with. A variant is
measured on one draw of calibration clips or on several; draws are numbered, and a smaller draw of the same
number is a part of the larger one, so that variants are compared draw by draw.
"""

from __future__ import annotations

import hashlib
import random
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bitvox.benchmarks.dataset import Dataset, Utterance
from bitvox.benchmarks.experiments.draws import MILLI, PERCENT, mean_rate
from bitvox.benchmarks.experiments.experiment import Options
from bitvox.benchmarks.experiments.judge import Judge, JudgedRow
from bitvox.benchmarks.experiments.ladder import Ladder
from bitvox.benchmarks.experiments.provenance import provenance
from bitvox.benchmarks.experiments.results import Document, Notebook, Rate, Schema, cell_key
from bitvox.benchmarks.experiments.speech import AN4, described, gather, read_split, speech_folder, stratified
from bitvox.compiler.frontend.audio import Clip, read_clip
from bitvox.compiler.frontend.model import SpeechModel
from bitvox.compiler.frontend.threads import single_threaded
from bitvox.memory import forget_peak, memory
from bitvox.progress import Progress, no_progress
from bitvox.request import CompileRequest
from bitvox.store import FileStore, default_store
from bitvox.voice import read_voice

SEED = 0
_MIB = 1 << 20


@dataclass(frozen=True)
class Draw:
    """Calibration clips: the first `count` of all, shuffled by the draw's number.

    `seconds` cuts each after that much; None leaves them whole.
    """

    number: int = 0
    count: int = 32
    seconds: float | None = None

    def of(self, utterances: Sequence[Utterance], rate: int) -> list[Clip]:
        """The clips themselves."""
        order = random.Random(self.number).sample(range(len(utterances)), len(utterances))
        clips = [read_clip(utterances[index].path, rate) for index in order[: self.count]]
        return clips if self.seconds is None else [_cut(clip, self.seconds, rate) for clip in clips]


def _cut(clip: Clip, seconds: float, rate: int) -> Clip:
    samples = clip.samples[: round(seconds * rate)]
    digest = hashlib.sha256(samples.tobytes()).hexdigest()
    return replace(clip, samples=samples, seconds=samples.size / rate, digest=digest)


@dataclass(frozen=True)
class Variant:
    """One cell.

    Attributes:
        study: What is varied; `name`: how this one does it.
        request: Without budget and audio, which follow from `bits` and `draw`.
        bits: Average whose bytes, in the request's tier, are the budget.
        reference: Whether the others of its study are compared with it.
        widths_of: Clips that widths are found on, where they are not those of `draw`: only rounding and
            ranges are learnt from these then.
        by_layer: Whether layers that read one input have widths of their own, as in the paper.
    """

    study: str
    name: str
    request: CompileRequest
    bits: float
    draw: Draw = Draw()
    reference: bool = False
    widths_of: Draw | None = None
    by_layer: bool = False


class VariantRow(JudgedRow):
    """A variant on one draw.

    Attributes:
        clips, clip_seconds: Of the calibration, as they were read.
        compile_seconds: CPU seconds from clips to a quantised model, one thread, nothing kept from before.
        peak_memory: Largest resident set meanwhile, in bytes, the judged recordings included.
    """

    study: str = ""
    name: str = ""
    reference: bool = False
    tier: str = ""
    activations: str = ""
    draw: int = 0
    clips: int = 0
    clip_seconds: float = 0.0
    compile_seconds: float = 0.0
    peak_memory: int | None = None


class VariantSummary(Schema):
    """A variant over all its draws, and minus the reference of its study, paired.

    Attributes:
        words: Word error rate in percent; `words_against`: minus that of the reference, in points.
        divergence: KL(full precision || variant) in thousandths of a nat a frame; `divergence_against` too.
        compile_seconds: Median; `peak_mib`: largest.
    """

    study: str
    tier: str
    activations: str
    bits: float
    name: str
    reference: bool
    draws: int
    average_bits: float
    words: Rate
    words_against: Rate
    divergence: Rate
    divergence_against: Rate
    clip_seconds: float
    compile_seconds: float
    peak_mib: float | None


class VariantDocument(Document[VariantRow, VariantSummary]):
    """Results of `ablations` and of `clips`."""


def measure_variants(
    experiment: str, variants: Sequence[Variant], options: Options, progress: Progress = no_progress
) -> VariantDocument:
    """Measure every variant that the results file lacks; a limit is one on the judged recordings."""
    speech = speech_folder()
    train = read_split(speech, AN4, "train")
    judged = stratified(read_split(speech, AN4, options.split), options.limit, SEED)
    with tempfile.TemporaryDirectory() as scratch, single_threaded():
        audio = gather(train.utterances[:4], Path(scratch) / "clips")
        base = CompileRequest(options.model, audio=audio, method="uniform", activations="dynamic")
        judge = Judge(read_voice(base, default_store(), no_progress), judged, default_store())
        data = {
            AN4: f"{options.split}: {described(judged)}",
            "calibration": f"{AN4} train: {described(train)}, from which clips are drawn",
        }
        fingerprint = judge.voice.model.fingerprint
        found = provenance(experiment, options.arguments, options.model, fingerprint, data)
        notebook = Notebook(options.out, VariantDocument, experiment, found)
        runner = _Runner(judge, train, base)
        keys = [_key(fingerprint, variant, judged) for variant in variants]
        notebook.keep(keys)
        try:
            for number, (key, variant) in enumerate(zip(keys, variants, strict=True)):
                progress(experiment, number, len(keys))
                if notebook.get(key) is None:
                    notebook.add(runner.row(key, variant))
            progress(experiment, len(keys), len(keys))
        finally:  # what is finished can be read, however the run ends
            rows = [row for key in keys if (row := notebook.get(key)) is not None]
            document = notebook.write(keys, tuple(summaries(rows, judge)))
    assert isinstance(document, VariantDocument)
    return document


def _key(fingerprint: str, variant: Variant, judged: Dataset) -> str:
    return cell_key(
        fingerprint=fingerprint,
        variant=replace(variant, request=replace(variant.request, audio=None)),
        judged=[utterance.path.name for utterance in judged.utterances],
    )


def _by_layer(model: SpeechModel) -> SpeechModel:
    return replace(model, sites=tuple(replace(site, share_group=site.name) for site in model.sites))


class _Runner:
    def __init__(self, judge: Judge, train: Dataset, base: CompileRequest) -> None:
        self._judge, self._train, self._base = judge, train, base
        self._rate = judge.voice.model.processor.sampling_rate
        self._ladders: dict[CompileRequest, Ladder] = {}

    def row(self, key: str, variant: Variant) -> VariantRow:
        """Measure one."""
        clips = variant.draw.of(self._train.utterances, self._rate)
        judge = self._judge.calibrated_on(clips)
        if variant.by_layer:
            judge.voice = replace(judge.voice, model=_by_layer(judge.voice.model))
        budget = self._budget(variant.request, variant.bits)
        request = replace(variant.request, audio=self._base.audio, budget=budget)
        plan = None
        if variant.widths_of is not None:
            other = self._judge.calibrated_on(variant.widths_of.of(self._train.utterances, self._rate))
            plan = other.planned(request)
        with tempfile.TemporaryDirectory() as scratch:
            judge.store = FileStore(Path(scratch))
            forget_peak()
            started = time.process_time()
            plan, module = judge.quantised(request) if plan is None else (plan, judge.following(plan))
            seconds = time.process_time() - started
        return judge.row_of(
            VariantRow,
            request,
            plan,
            module,
            key=key,
            bits=variant.bits,
            study=variant.study,
            name=variant.name,
            reference=variant.reference,
            tier=request.tier,
            activations=request.activations,
            draw=variant.draw.number,
            clips=len(clips),
            clip_seconds=round(sum(clip.seconds for clip in clips), 2),
            compile_seconds=round(seconds, 2),
            peak_memory=memory("VmHWM"),
        )

    def _budget(self, request: CompileRequest, bits: float) -> int:
        """What that many bits a weight take in the request's tier."""
        plain = replace(self._base, tier=request.tier, activations=request.activations)
        if plain not in self._ladders:
            self._ladders[plain] = self._judge.ladder(plain)
        return self._ladders[plain].at_average(bits)[0]


def summaries(rows: Iterable[VariantRow], judge: Judge) -> Iterator[VariantSummary]:
    """Every variant of which some draws are finished, in order."""
    groups: dict[tuple[object, ...], list[VariantRow]] = {}
    for row in rows:
        groups.setdefault((row.study, row.tier, row.bits, row.name), []).append(row)
    for group in groups.values():
        first = group[0]
        of_study = [
            one
            for one in groups.values()
            if one[0].reference
            and (one[0].study, one[0].tier, one[0].bits) == (first.study, first.tier, first.bits)
        ]
        against = of_study[0] if of_study else group
        yield _summary(group, against, judge)


def _summary(group: Sequence[VariantRow], against: Sequence[VariantRow], judge: Judge) -> VariantSummary:
    first = group[0]
    paired = _same_draws(group, against)
    words, frames = judge.count(first.texts).length, first.frames
    errors = [judge.count(row.texts).errors for row in group]
    lost = [row.divergences for row in group]
    more_errors = [a - judge.count(b.texts).errors for a, b in zip(errors, paired, strict=True)]
    more_lost = [
        [x - y for x, y in zip(a, b.divergences, strict=True)] for a, b in zip(lost, paired, strict=True)
    ]
    peaks = [row.peak_memory for row in group if row.peak_memory is not None]
    return VariantSummary(
        study=first.study,
        tier=first.tier,
        activations=first.activations,
        bits=first.bits or 0.0,
        name=first.name,
        reference=first.reference,
        draws=len(group),
        average_bits=round(statistics.mean(row.average_bits for row in group), 3),
        words=mean_rate(errors, words, judge.speakers, PERCENT),
        words_against=mean_rate(more_errors, words, judge.speakers, PERCENT),
        divergence=mean_rate(lost, frames, judge.speakers, MILLI),
        divergence_against=mean_rate(more_lost, frames, judge.speakers, MILLI),
        clip_seconds=round(statistics.mean(row.clip_seconds for row in group), 1),
        compile_seconds=round(statistics.median(row.compile_seconds for row in group), 1),
        peak_mib=round(max(peaks) / _MIB, 1) if peaks else None,
    )


def _same_draws(group: Sequence[VariantRow], against: Sequence[VariantRow]) -> list[VariantRow]:
    """The reference's row of each row's draw; its first where it has no such draw."""
    by_draw = {row.draw: row for row in against}
    return [by_draw.get(row.draw, against[0]) for row in group]
