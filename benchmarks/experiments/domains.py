"""Audio of one kind to calibrate with, of another to be used on: does calibration have to match the use?

    bitvox reproduce domains

AN4 as it was recorded, with noise, reverberant, as through a telephone, and speechocean762: other speakers,
another accent, another microphone. Each calibrates and each is heard: clean calibration on every kind, and
every kind's own. Widths are those that `auto` finds on other clean clips; what is learnt anew on every draw
is how the weights are rounded.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import soundfile
import torch

from bitvox.benchmarks.dataset import Dataset, Utterance
from bitvox.benchmarks.experiments.augment import AUGMENTATIONS, augmented
from bitvox.benchmarks.experiments.draws import MILLI, PERCENT, mean_rate
from bitvox.benchmarks.experiments.experiment import Options
from bitvox.benchmarks.experiments.judge import Judge, JudgedRow
from bitvox.benchmarks.experiments.provenance import provenance
from bitvox.benchmarks.experiments.results import Document, Notebook, Rate, Schema, cell_key
from bitvox.benchmarks.experiments.speech import (
    AN4,
    SPEECHOCEAN,
    described,
    gather,
    read_split,
    speech_folder,
    stratified,
)
from bitvox.benchmarks.experiments.variants import SEED, Draw
from bitvox.compiler.frontend.audio import Clip, read_clip
from bitvox.compiler.frontend.threads import single_threaded
from bitvox.compiler.passes.plan import QuantPlan
from bitvox.progress import Progress, no_progress
from bitvox.request import CompileRequest
from bitvox.store import default_store
from bitvox.voice import Voice, read_voice

CLEAN = "clean"
KINDS = (CLEAN, *AUGMENTATIONS, SPEECHOCEAN)

_BITS = 2.5
_DRAWS = 5
_CLIPS = 32
_RECORDINGS, _FOREIGN_RECORDINGS = 48, 32

# Of the clips that widths are found on: of no draw that calibrates.
_WIDTHS = Draw(number=1000, count=_CLIPS)


@dataclass(frozen=True)
class Setting:
    """What the experiment runs on.

    Attributes:
        train: Recordings that draws are made of, by data set.
        judged: Recordings that are heard, by data set; AN4's in every kind.
        draws: Draws of calibration clips; `clips`: in each, of AN4.
    """

    model: str
    train: dict[str, Dataset]
    judged: dict[str, Dataset]
    draws: int = _DRAWS
    clips: int = _CLIPS
    kinds: tuple[str, ...] = KINDS


class DomainRow(JudgedRow):
    """A model calibrated on one kind and heard on another; `calibrated` is empty of full precision."""

    calibrated: str = ""
    heard: str = ""
    draw: int = 0


class DomainSummary(Schema):
    """One kind that is heard, by models calibrated on it and on clean audio, over all draws.

    Attributes:
        full: Word error rate of full precision there, in percent.
        clean, matched: Increase over it, in points; `words_gain`: clean minus matched.
        clean_divergence, matched_divergence: KL to full precision there, thousandths of a nat a frame;
            `divergence_gain`: clean minus matched.
        on_clean: Divergence on clean audio of the model calibrated on this kind, minus that of the model
            calibrated on clean: what matching costs elsewhere.
    """

    heard: str
    draws: int
    full: Rate
    clean: Rate
    matched: Rate
    words_gain: Rate
    clean_divergence: Rate
    matched_divergence: Rate
    divergence_gain: Rate
    on_clean: Rate


class DomainDocument(Document[DomainRow, DomainSummary]):
    """`domains_dev.json` and `domains_test.json`."""


def domains(
    out: Path, setting: Setting, progress: Progress = no_progress, arguments: Sequence[str] = ()
) -> DomainDocument:
    """Measure every row that the file does not have, draw by draw."""
    with tempfile.TemporaryDirectory() as scratch, single_threaded():
        folder = Path(scratch)
        base = CompileRequest(
            setting.model,
            audio=gather(setting.train[AN4].utterances[:4], folder / "voice"),
            method="auto",
            activations="dynamic",
        )
        bench = _Bench(read_voice(base, default_store(), no_progress), setting, base, folder)
        data = {name: described(dataset) for name, dataset in setting.judged.items()}
        found = provenance("domains", arguments, setting.model, bench.voice.model.fingerprint, data)
        notebook = Notebook(out, DomainDocument, "domains", found)
        cells = list(_cells(setting))
        keys = {cell: _key(bench.voice, setting, cell) for cell in cells}
        notebook.keep(keys.values())
        try:
            for number, cell in enumerate(cells):
                progress("domains", number, len(cells))
                if notebook.get(keys[cell]) is None:
                    notebook.add(bench.row(keys[cell], cell))
            progress("domains", len(cells), len(cells))
        finally:  # what is finished can be read, however the run ends
            rows = [row for key in keys.values() if (row := notebook.get(key)) is not None]
            document = notebook.write(keys.values(), tuple(_summaries(rows, bench)))
    assert isinstance(document, DomainDocument)
    return document


@dataclass(frozen=True)
class _Cell:
    """What is calibrated on, with which draw (None is full precision), and what is heard."""

    calibrated: str
    draw: int | None
    heard: str


def _cells(setting: Setting) -> Iterator[_Cell]:
    for heard in setting.kinds:
        yield _Cell("", None, heard)
    for draw in range(setting.draws):
        for calibrated in setting.kinds:
            for heard in setting.kinds if calibrated == CLEAN else (calibrated, CLEAN):
                yield _Cell(calibrated, draw, heard)


def _key(voice: Voice, setting: Setting, cell: _Cell) -> str:
    return cell_key(
        fingerprint=voice.model.fingerprint,
        cell=cell,
        bits=_BITS,
        clips=setting.clips,
        train=[described(dataset) for dataset in setting.train.values()],
        judged=[one.path.name for dataset in setting.judged.values() for one in dataset.utterances],
    )


class _Bench:
    """A judge for every kind, and the last model, which several of them hear."""

    def __init__(self, voice: Voice, setting: Setting, base: CompileRequest, folder: Path) -> None:
        self.voice, self._setting, self._folder = voice, setting, folder
        self._rate = voice.model.processor.sampling_rate
        self._judges: dict[str, Judge] = {}
        self._request, self._plan = self._planned(base)
        self._last: tuple[tuple[str, int], torch.nn.Module] | None = None

    def judge(self, kind: str) -> Judge:
        """The judge that hears that kind."""
        if kind not in self._judges:
            self._judges[kind] = Judge(self.voice, self._recordings(kind), default_store())
        return self._judges[kind]

    def row(self, key: str, cell: _Cell) -> DomainRow:
        """Measure one."""
        judge = self.judge(cell.heard)
        if cell.draw is None:
            return judge.row(DomainRow, key, None, None, heard=cell.heard)
        module = self._model(cell.calibrated, cell.draw)
        told = {"calibrated": cell.calibrated, "heard": cell.heard, "draw": cell.draw}
        return judge.row_of(DomainRow, self._request, self._plan, module, key=key, bits=_BITS, **told)

    def _planned(self, base: CompileRequest) -> tuple[CompileRequest, QuantPlan]:
        judge = self.judge(CLEAN)
        clips = replace(_WIDTHS, count=self._setting.clips).of(
            self._setting.train[AN4].utterances, self._rate
        )
        request = replace(base, budget=judge.ladder(replace(base, method="uniform")).at_average(_BITS)[0])
        return request, judge.calibrated_on(clips).planned(request)

    def _model(self, kind: str, draw: int) -> torch.nn.Module:
        if self._last is None or self._last[0] != (kind, draw):
            judge = self.judge(CLEAN).calibrated_on(self._clips(kind, draw))
            self._last = (kind, draw), judge.following(self._plan)
        return self._last[1]

    def _clips(self, kind: str, draw: int) -> list[Clip]:
        """As many as AN4's of that draw; of the other data set as many as are as long."""
        ours = Draw(draw, self._setting.clips).of(self._setting.train[AN4].utterances, self._rate)
        if kind == CLEAN:
            return ours
        if kind != SPEECHOCEAN:
            return [_changed(clip, self._rate, kind) for clip in ours]
        others = Draw(draw, self._setting.clips).of(self._setting.train[SPEECHOCEAN].utterances, self._rate)
        enough, seconds = sum(clip.seconds for clip in ours), 0.0
        kept = []
        for clip in others:
            if seconds < enough:
                kept.append(clip)
                seconds += clip.seconds
        return kept

    def _recordings(self, kind: str) -> Dataset:
        if kind == SPEECHOCEAN:
            return self._setting.judged[SPEECHOCEAN]
        source = self._setting.judged[AN4]
        if kind == CLEAN:
            return source
        folder = self._folder / kind.replace(" ", "-")
        folder.mkdir()
        return Dataset(folder, tuple(self._written(one, kind, folder) for one in source.utterances))

    def _written(self, utterance: Utterance, kind: str, folder: Path) -> Utterance:
        clip = _changed(read_clip(utterance.path, self._rate), self._rate, kind)
        path = (folder / utterance.path.name).with_suffix(".wav")
        soundfile.write(path, clip.samples, self._rate, subtype="FLOAT")
        return replace(utterance, path=path)


def _changed(clip: Clip, rate: int, kind: str) -> Clip:
    samples = augmented(clip.samples, rate, kind, clip.path.name)
    return replace(clip, samples=samples, digest=hashlib.sha256(samples.tobytes()).hexdigest())


def _summaries(rows: Sequence[DomainRow], bench: _Bench) -> Iterator[DomainSummary]:
    """Every kind of which some draws were calibrated on both."""
    found = {(row.calibrated, row.heard, row.draw): row for row in rows}
    full = {row.heard: row for row in rows if not row.calibrated}
    for kind in dict.fromkeys(row.heard for row in rows):
        draws = [row.draw for row in rows if (row.calibrated, row.heard) == (kind, kind)]
        draws = [
            draw
            for draw in draws
            if all(name in found for name in ((CLEAN, kind, draw), (kind, CLEAN, draw), (CLEAN, CLEAN, draw)))
        ]
        if draws:
            yield _summary(kind, draws, full[kind], found, bench)


def _summary(
    kind: str,
    draws: Sequence[int],
    full: DomainRow,
    found: dict[tuple[str, str, int], DomainRow],
    bench: _Bench,
) -> DomainSummary:
    judge, plain = bench.judge(kind), bench.judge(CLEAN)
    words = judge.count(full.texts)
    clean, matched = ([found[how, kind, draw] for draw in draws] for how in (CLEAN, kind))
    back, home = ([found[how, CLEAN, draw] for draw in draws] for how in (kind, CLEAN))

    def errors(group: Sequence[DomainRow], minus: Sequence[DomainRow]) -> Rate:
        values = [
            judge.count(a.texts).errors - judge.count(b.texts).errors
            for a, b in zip(group, minus, strict=True)
        ]
        return mean_rate(values, words.length, judge.speakers, PERCENT)

    def lost(where: Judge, group: Sequence[DomainRow], minus: Sequence[DomainRow]) -> Rate:
        pairs = zip(group, minus, strict=True)
        values = [[x - y for x, y in zip(a.divergences, b.divergences, strict=True)] for a, b in pairs]
        return mean_rate(values, group[0].frames, where.speakers, MILLI)

    everywhere = [full] * len(draws)
    return DomainSummary(
        heard=kind,
        draws=len(draws),
        full=full.words.rate,
        clean=errors(clean, everywhere),
        matched=errors(matched, everywhere),
        words_gain=errors(clean, matched),
        clean_divergence=lost(judge, clean, everywhere),
        matched_divergence=lost(judge, matched, everywhere),
        divergence_gain=lost(judge, clean, matched),
        on_clean=lost(plain, back, home),
    )


def measure(options: Options, progress: Progress) -> DomainDocument:
    """`bitvox reproduce domains`; a limit is one on the judged recordings of each data set."""
    speech = speech_folder()
    most = {AN4: _RECORDINGS, SPEECHOCEAN: _FOREIGN_RECORDINGS}
    judged = {
        name: stratified(read_split(speech, name, options.split), min(count, options.limit or count), SEED)
        for name, count in most.items()
    }
    train = {name: read_split(speech, name, "train") for name in (AN4, SPEECHOCEAN)}
    return domains(options.out, Setting(options.model, train, judged), progress, options.arguments)
