"""Does it matter whose gender a model is calibrated on? On women, on men, on both, on nobody.

    bitvox reproduce gender

The paper's first experiment (arXiv 2307.12659) with recordings that calibrate apart from those that judge:
training speakers calibrate, the same seconds in every set, drawn five times; dev or test speakers judge.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from bitvox.benchmarks import metrics
from bitvox.benchmarks.dataset import Dataset, Utterance
from bitvox.benchmarks.experiments.contrasts import Contrast, Pair, Told, contrast
from bitvox.benchmarks.experiments.experiment import Options, Split
from bitvox.benchmarks.experiments.fixed_widths import FixedWidths, Method
from bitvox.benchmarks.experiments.judge import Judge, JudgedRow
from bitvox.benchmarks.experiments.people import Person, first_seconds, generic_recordings, read_people
from bitvox.benchmarks.experiments.provenance import provenance
from bitvox.benchmarks.experiments.results import Document, Notebook, cell_key
from bitvox.benchmarks.experiments.speech import AN4, SPEECHOCEAN, gather, speech_folder
from bitvox.compiler.passes.bytes import average_bits
from bitvox.progress import Progress, no_progress
from bitvox.request import CompileRequest
from bitvox.store import default_store
from bitvox.voice import read_voice

SEED = 0
Source = Literal["f", "m", "both", "none"]

# Recordings of each speaker that judge: what separates calibration sets is between speakers, not within.
JUDGED = {AN4: 6, SPEECHOCEAN: 1}


@dataclass(frozen=True)
class Setting:
    """What the experiment runs on.

    Attributes:
        people: Data set -> everybody in it.
        judged: Data set -> recordings of each speaker that judge.
        arms: Methods and averages whose bytes are the budgets, in the order in which they are measured.
        draws: Of calibration clips; `seconds`: in each of them.
    """

    model: str
    people: Mapping[str, Sequence[Person]]
    split: Split = "test"
    judged: Mapping[str, int] | None = None
    arms: tuple[tuple[Method, float], ...] = (
        ("auto", 2.5),
        ("myqasr", 2.5),
        ("auto", 4.0),
        ("myqasr", 4.0),
        ("auto", 3.0),
        ("myqasr", 3.0),
    )
    draws: int = 5
    seconds: float = 30.0


class GenderRow(JudgedRow):
    """One model, judged on everyone: calibrated on one gender of one data set, in one draw."""

    corpus: str
    source: Source | None = None
    draw: int = 0


class GenderDocument(Document[GenderRow, Contrast]):
    """`gender_dev.json` and `gender_test.json`."""


def gender(
    out: Path, setting: Setting, progress: Progress = no_progress, arguments: Sequence[str] = ()
) -> GenderDocument:
    """Measure every row that the file does not have."""
    with tempfile.TemporaryDirectory() as scratch:
        audio = gather(generic_recordings(setting.people), Path(scratch) / "clips")
        base = CompileRequest(setting.model, audio=audio, activations="dynamic", seed=SEED)
        store = default_store()
        voice = read_voice(base, store, no_progress)
        judged = {corpus: _judged(setting, corpus) for corpus in setting.people}
        data = {
            corpus: f"{len(one.utterances)} recordings of {len({u.speaker for u in one.utterances})} "
            f"{setting.split} speakers judge; train speakers calibrate, {setting.seconds:g} s a set"
            for corpus, one in judged.items()
        }
        cells = list(_cells(setting))
        data["rows planned"] = str(len(cells))
        found = provenance("gender", arguments, setting.model, voice.model.fingerprint, data)
        notebook = Notebook(out, GenderDocument, f"gender_{setting.split}", found)
        keys = [_key(setting, voice.model.fingerprint, judged[cell[0]], cell) for cell in cells]
        notebook.keep(keys)
        judges: dict[str, tuple[Judge, FixedWidths]] = {}
        try:
            for number, (key, cell) in enumerate(zip(keys, cells, strict=True)):
                progress("gender", number, len(keys))
                if notebook.get(key) is None:
                    if cell[0] not in judges:
                        judge = Judge(voice, judged[cell[0]], store)
                        judges[cell[0]] = judge, FixedWidths(judge, base)
                    notebook.add(_row(setting, key, cell, *judges[cell[0]]))
            progress("gender", len(keys), len(keys))
        finally:  # a run that is stopped says what its rows say
            rows = [row for key in keys if (row := notebook.get(key)) is not None]
            document = notebook.write(keys, tuple(_contrasts(setting, judged, rows)))
    assert isinstance(document, GenderDocument)
    return document


_Cell = tuple[str, Method | None, float, Source | None, int]


def _cells(setting: Setting) -> Iterator[_Cell]:
    """Full precision, then arm by arm, so that a run that stops has whole arms."""
    for corpus in setting.people:
        yield corpus, None, 32.0, None, 0
    for method, bits in setting.arms:
        for corpus in setting.people:
            yield corpus, method, bits, "none", 0
            for draw in range(setting.draws):
                for source in ("f", "m", "both"):
                    yield corpus, method, bits, source, draw


def _judged(setting: Setting, corpus: str) -> Dataset:
    count = (setting.judged or JUDGED)[corpus]
    found: list[Utterance] = []
    for person in setting.people[corpus]:
        if person.split == setting.split:
            draw = random.Random(f"{SEED} {person.speaker}")
            found += draw.sample(person.utterances, min(count, len(person.utterances)))
    return Dataset(Path(corpus), tuple(found))


def calibration(setting: Setting, corpus: str, source: str, draw: int) -> list[Utterance]:
    """Recordings of training speakers in the order of a draw; of both genders in turn."""
    sides = []
    for wanted in ("f", "m") if source == "both" else (source,):
        side = [
            utterance
            for person in setting.people[corpus]
            if person.split == "train" and person.gender == wanted
            for utterance in person.utterances
        ]
        sides.append(random.Random(f"{SEED} {corpus} {wanted} {draw}").sample(side, len(side)))
    return [utterance for turn in zip(*sides, strict=False) for utterance in turn]


def _key(setting: Setting, fingerprint: str, judged: Dataset, cell: _Cell) -> str:
    return cell_key(
        fingerprint=fingerprint,
        cell=cell,
        seconds=setting.seconds,
        generic=[utterance.path.name for utterance in generic_recordings(setting.people)],
        judged=[utterance.path.name for utterance in judged.utterances],
    )


def _row(setting: Setting, key: str, cell: _Cell, judge: Judge, widths: FixedWidths) -> GenderRow:
    corpus, method, bits, source, draw = cell
    if method is None:
        return judge.row(GenderRow, key, None, None, corpus=corpus)
    clips = None
    if source not in (None, "none"):
        processor = judge.voice.model.processor
        drawn = calibration(setting, corpus, str(source), draw)
        clips = first_seconds(drawn, setting.seconds, processor.sampling_rate, processor.minimum_samples)
    plan, module = widths.model(method, bits, clips)
    return judge.scored(
        GenderRow,
        module,
        key=key,
        corpus=corpus,
        source=source,
        draw=draw,
        method=method,
        bits=bits,
        budget=plan.budget,
        bytes=plan.total_bytes,
        average_bits=round(average_bits(judge.voice.model, plan), 4),
        plan=plan.method,
    )


def _contrasts(
    setting: Setting, judged: Mapping[str, Dataset], rows: Sequence[GenderRow]
) -> Iterator[Contrast]:
    """The same gender against the other, against both, against nobody: on women, on men, on all."""
    found: dict[tuple[object, ...], GenderRow] = {
        (row.corpus, row.method, row.bits, row.source, row.draw): row for row in rows
    }
    for method, bits in setting.arms:
        for corpus, people in setting.people.items():
            genders = {person.speaker: person.gender for person in people}
            for against in ("other", "both", "none"):
                for group in ("f", "m", "all"):
                    pairs: list[Pair] = []
                    for draw in range(setting.draws):
                        for own, other in (("f", "m"), ("m", "f")):
                            theirs = {"other": (other, draw), "both": ("both", draw), "none": ("none", 0)}[
                                against
                            ]
                            one = found.get((corpus, method, bits, own, draw))
                            two = found.get((corpus, method, bits, *theirs))
                            if one is None or two is None or group not in (own, "all"):
                                continue
                            pairs += _pairs(judged[corpus], genders, own, one, two)
                    if pairs:
                        name = {"f": "women", "m": "men", "all": "all"}[group]
                        yield contrast(pairs, corpus, name, method, bits, "same", against)


def _pairs(
    judged: Dataset, genders: Mapping[str, str], wanted: str, one: GenderRow, two: GenderRow
) -> Iterator[Pair]:
    """Of every speaker of a gender, what two rows made of the recordings."""
    places: dict[str, list[int]] = {}
    for place, utterance in enumerate(judged.utterances):
        if genders[utterance.speaker or ""] == wanted:
            places.setdefault(utterance.speaker or "", []).append(place)
    for speaker, chosen in places.items():
        yield speaker, _told(judged, one, chosen), _told(judged, two, chosen)


def _told(judged: Dataset, row: GenderRow, places: Sequence[int]) -> Told:
    said = [judged.utterances[place].text or "" for place in places]
    counts = metrics.count_words(said, [row.texts[place] for place in places])
    return Told(
        int(counts.errors.sum()),
        int(counts.length.sum()),
        sum(row.divergences[place] for place in places),
        sum(row.frames[place] for place in places),
    )


def measure(options: Options, progress: Progress) -> GenderDocument:
    """`bitvox reproduce gender`; a limit is one on the recordings of each speaker that judge."""
    speech = speech_folder()
    torch.set_num_threads(1)
    people = {corpus: read_people(speech, corpus) for corpus in (AN4, SPEECHOCEAN)}
    judged = {name: min(options.limit or count, count) for name, count in JUDGED.items()}
    setting = Setting(options.model, people, options.split, judged)
    return gender(options.out, setting, progress, options.arguments)
