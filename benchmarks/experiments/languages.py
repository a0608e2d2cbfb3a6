"""Calibrated on one language, judged on another: a multilingual checkpoint and a folder for each language.

    bitvox reproduce languages
    BITVOX_LANGUAGES=FOLDER bitvox reproduce languages --model CHECKPOINT --out FILE

A language is a folder, called by its code, with a `manifest.csv` whose `split` keeps who calibrates (dev)
apart from who is judged (test). Without another model and folder it is the classifier of spoken digits in
five languages, on synthetic voices, that `make reference-languages` makes.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from bitvox.benchmarks import metrics
from bitvox.benchmarks.dataset import Dataset, Utterance, read_dataset
from bitvox.benchmarks.experiments.draws import MILLI, Values, mean_rate
from bitvox.benchmarks.experiments.experiment import MODEL, Options
from bitvox.benchmarks.experiments.fixed_widths import FixedWidths, Method
from bitvox.benchmarks.experiments.judge import Judge, JudgedRow
from bitvox.benchmarks.experiments.provenance import provenance
from bitvox.benchmarks.experiments.results import (
    REPOSITORY,
    Document,
    Errors,
    Notebook,
    Rate,
    Schema,
    cell_key,
)
from bitvox.benchmarks.experiments.speech import described, draw_clips, stratified
from bitvox.compiler.frontend.audio import Clip, read_clip
from bitvox.compiler.passes.bytes import average_bits
from bitvox.errors import InputError
from bitvox.progress import Progress, no_progress
from bitvox.request import CompileRequest
from bitvox.store import default_store
from bitvox.voice import Voice, read_voice

BITS = (2.5, 3.0)
CLIPS = 10
JUDGED = 60
SEED = 0

# Clips of each language for the default method's widths.
GENERIC = 2

_METHODS: tuple[Method, ...] = ("auto", "myqasr")
_MADE = Path("build") / "reference-languages"

# Written without spaces between words, or with spaces that writers differ about: characters are counted.
_BY_CHARACTER = frozenset({"ja", "ko", "lo", "my", "th", "yue", "zh"})


@dataclass(frozen=True)
class Language:
    """One language's recordings, of different speakers: to calibrate with, and to judge on."""

    calibration: tuple[Utterance, ...]
    judged: Dataset


@dataclass(frozen=True)
class Setting:
    """What the experiment runs on: a checkpoint, languages by code, averages whose bytes are the budgets."""

    model: str
    languages: Mapping[str, Language]
    bits: tuple[float, ...] = BITS


class LanguageRow(JudgedRow):
    """A model calibrated on a language (None: on nothing), judged on the recordings of all languages."""

    calibrated_on: str | None = None


class Matrix(Schema):
    """One method at one budget.

    Attributes:
        errors: Language judged -> language calibrated on (`none`, `full precision` too) -> error rate.
        own: Errors of calibration on the language judged; `foreign`: mean over the other languages; both over
            all languages judged.
        difference: The first minus the second, in points, paired; its interval resamples speakers.
        own_divergence, foreign_divergence: KL to full precision, thousandths of a nat a frame;
            `divergence_difference`: the first minus the second, paired.
    """

    method: str
    bits: float
    bytes: int
    errors: dict[str, dict[str, Errors]]
    own: Rate
    foreign: Rate
    difference: Rate
    own_divergence: Rate
    foreign_divergence: Rate
    divergence_difference: Rate


class LanguagesDocument(Document[LanguageRow, Matrix]):
    """`languages.json`."""


def languages(
    out: Path, setting: Setting, progress: Progress = no_progress, arguments: Sequence[str] = ()
) -> LanguagesDocument:
    """Measure every row that the file does not have."""
    store = default_store()
    first = next(iter(setting.languages.values()))
    # Of equal parts of each language: what the default method's widths are found on.
    generic = [one for language in setting.languages.values() for one in language.calibration[:GENERIC]]
    base = CompileRequest(setting.model, audio=generic[0].path, activations="dynamic", seed=SEED)
    judged = tuple(one for language in setting.languages.values() for one in language.judged.utterances)
    voice = read_voice(base, store, no_progress)
    voice = replace(voice, calibration=tuple(_clips(voice, generic)))
    judge = Judge(voice, Dataset(first.judged.origin, judged), store)
    widths = FixedWidths(judge, base)
    data = {code: described(language.judged) for code, language in setting.languages.items()}
    data["calibration"] = f"{len(first.calibration)} clips of a language, of other speakers"
    found = provenance("languages", arguments, setting.model, voice.model.fingerprint, data)
    notebook = Notebook(out, LanguagesDocument, "languages", found)
    wanted = list(_cells(setting))
    keys = [_key(setting, voice.model.fingerprint, cell) for cell in wanted]
    notebook.keep(keys)
    try:
        for number, (key, cell) in enumerate(zip(keys, wanted, strict=True)):
            progress("languages", number, len(wanted))
            if notebook.get(key) is None:
                notebook.add(_row(judge, widths, setting, cell, key))
        progress("languages", len(wanted), len(wanted))
    finally:  # what is finished can be read, however the run ends
        rows = [row for key in keys if (row := notebook.get(key)) is not None]
        document = notebook.write(keys, tuple(_matrices(judge, setting, rows)))
    assert isinstance(document, LanguagesDocument)
    return document


@dataclass(frozen=True)
class _Cell:
    """A model before it is made; without bits that of full precision, without a language on nothing."""

    method: Literal["full precision", "auto", "myqasr"]
    bits: float | None = None
    language: str | None = None


def _cells(setting: Setting) -> Iterator[_Cell]:
    yield _Cell("full precision")
    for bits, method in itertools.product(setting.bits, _METHODS):
        for language in (None, *setting.languages):
            yield _Cell(method, bits, language)


def _row(judge: Judge, widths: FixedWidths, setting: Setting, cell: _Cell, key: str) -> LanguageRow:
    if cell.bits is None or cell.method == "full precision":
        return judge.scored(LanguageRow, judge.voice.model.module, key=key, method=cell.method)
    spoken = setting.languages[cell.language].calibration if cell.language else ()
    plan, module = widths.model(cell.method, cell.bits, _clips(judge.voice, spoken) or None)
    return judge.scored(
        LanguageRow,
        module,
        key=key,
        method=cell.method,
        bits=cell.bits,
        budget=plan.budget,
        bytes=plan.total_bytes,
        average_bits=round(average_bits(judge.voice.model, plan), 4),
        plan=plan.method,
        calibrated_on=cell.language,
    )


def _clips(voice: Voice, spoken: Sequence[Utterance]) -> list[Clip]:
    return [read_clip(one.path, voice.model.processor.sampling_rate) for one in spoken]


def _key(setting: Setting, fingerprint: str, cell: _Cell) -> str:
    return cell_key(
        fingerprint=fingerprint,
        cell=(cell.method, cell.bits, cell.language),
        settings=(SEED, GENERIC),
        clips=[
            [code, [one.path.name for one in (*language.calibration, *language.judged.utterances)]]
            for code, language in setting.languages.items()
        ],
    )


def _matrices(judge: Judge, setting: Setting, rows: Sequence[LanguageRow]) -> Iterator[Matrix]:
    """Of every method and budget that all languages have calibrated."""
    full = next((row for row in rows if row.bits is None), None)
    for bits, method in itertools.product(setting.bits, _METHODS):
        here = {row.calibrated_on or "none": row for row in rows if (row.bits, row.method) == (bits, method)}
        if full is not None and set(here) == {"none", *setting.languages}:
            own = {code: here[code] for code in setting.languages}
            columns = {**own, "none": here["none"], "full precision": full}
            yield _Comparison(judge, setting, own).matrix(method, bits, columns)


class _Comparison:
    """The rows of one method and budget, cut into the languages judged."""

    def __init__(self, judge: Judge, setting: Setting, rows: Mapping[str, LanguageRow]) -> None:
        self.judge, self.rows = judge, rows
        self.places: dict[str, slice] = {}
        start = 0
        for code, language in setting.languages.items():
            self.places[code] = slice(start, start + len(language.judged.utterances))
            start += len(language.judged.utterances)

    def matrix(self, method: str, bits: float, columns: Mapping[str, LanguageRow]) -> Matrix:
        """Error rates of every pair, and own against foreign languages over all of them."""
        errors = {
            code: {
                name: Errors.of(metrics.error_rate(self._counts(code, row), self._speakers(code)))
                for name, row in columns.items()
            }
            for code in self.places
        }
        pairs = [(code, name) for code in self.places for name in self.rows if name != code]
        own = _joined([self._counts(code, self.rows[code]) for code, _ in pairs])
        foreign = _joined([self._counts(code, self.rows[name]) for code, name in pairs])
        speakers = [speaker for code, _ in pairs for speaker in self._speakers(code)]
        lost = self._divergences()
        return Matrix(
            method=method,
            bits=bits,
            bytes=max(row.bytes for row in self.rows.values()),
            errors=errors,
            own=Rate.of(metrics.error_rate(own, speakers).rate),
            foreign=Rate.of(metrics.error_rate(foreign, speakers).rate),
            difference=Rate.of(metrics.rate_difference(own, foreign, speakers)),
            own_divergence=self._mean(lost[0]),
            foreign_divergence=self._mean(lost[1]),
            divergence_difference=self._mean(lost[0] - lost[1]),
        )

    def _speakers(self, code: str) -> list[object]:
        return list(self.judge.speakers[self.places[code]])

    def _counts(self, code: str, row: LanguageRow) -> metrics.ErrorCounts:
        place = self.places[code]
        said, texts = self.judge.said[place], row.texts[place]
        if self.judge.voice.model.family == "classifier":
            return metrics.count_labels(said, texts)
        return (metrics.count_characters if code in _BY_CHARACTER else metrics.count_words)(said, texts)

    def _divergences(self) -> Values:
        """Of each recording, with its own language and the mean with the others, [2, recordings]."""
        by_language = {name: np.array(row.divergences) for name, row in self.rows.items()}
        found = np.zeros((2, len(self.judge.speakers)))
        for code, place in self.places.items():
            others = [values[place] for name, values in by_language.items() if name != code]
            found[:, place] = by_language[code][place], np.mean(others, axis=0)
        return found

    def _mean(self, divergences: Values) -> Rate:
        frames = next(iter(self.rows.values())).frames
        return mean_rate(divergences, frames, self.judge.speakers, MILLI)


def _joined(parts: Sequence[metrics.ErrorCounts]) -> metrics.ErrorCounts:
    names = ("substitutions", "deletions", "insertions", "length")
    return metrics.ErrorCounts(*(np.concatenate([getattr(one, name) for one in parts]) for name in names))


def measure(options: Options, progress: Progress) -> LanguagesDocument:
    """`bitvox reproduce languages`; a limit is one on the recordings judged of each language."""
    torch.set_num_threads(1)
    made = options.model == MODEL
    model = str(_MADE / "final") if made else options.model
    found = {
        folder.name: read_language(folder, min(options.limit or JUDGED, JUDGED))
        for folder in _folders(REPOSITORY / _MADE / "data")
    }
    if made and not (REPOSITORY / model).is_dir():
        raise InputError(f"{model}: not there; make reference-languages trains it, or name another --model")
    return languages(options.out, Setting(model, found), progress, options.arguments)


def _folders(made: Path) -> list[Path]:
    """Of `BITVOX_LANGUAGES`, else those that `make reference-languages` leaves."""
    parent = Path(os.environ.get("BITVOX_LANGUAGES") or made)
    folders = sorted(path.parent for path in parent.glob("*/manifest.csv"))
    if len(folders) < 2:
        raise InputError(
            f"{parent}: {len(folders)} languages; give two or more folders with a manifest.csv in the "
            "folder that BITVOX_LANGUAGES names, or make reference-languages"
        )
    return folders


def read_language(folder: Path, judged: int) -> Language:
    """A language's folder: clips of dev speakers drawn by seed, and `judged` ones of its test speakers."""
    table = folder / "manifest.csv"
    calibration = draw_clips(read_dataset(table, "dev"), CLIPS, SEED)
    return Language(tuple(calibration), stratified(read_dataset(table, "test"), judged, SEED))
