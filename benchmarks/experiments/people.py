"""Who speaks in the recordings, and the same number of seconds of each."""

from __future__ import annotations

import csv
import dataclasses
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bitvox.benchmarks.dataset import Utterance
from bitvox.compiler.frontend.audio import Clip, read_clip

# A quarter is kept to judge agreement with; 32 calibrate.
_GENERIC_CLIPS = 42


@dataclass(frozen=True)
class Person:
    """One speaker of a data set.

    Attributes:
        gender: `f` or `m`; `age_group`: `child`, `adult`, or empty where the data set does not say.
        split: `train`, `dev` or `test`.
        utterances: All recordings, in the order of the table.
    """

    speaker: str
    corpus: str
    gender: str
    age_group: str
    split: str
    utterances: tuple[Utterance, ...]

    def half(self, number: int) -> tuple[Utterance, ...]:
        """Every other recording: half 0 or half 1."""
        return self.utterances[number::2]


def read_people(speech: Path, corpus: str) -> list[Person]:
    """Everybody in a data set, sorted by speaker."""
    table = speech / corpus / "manifest.csv"
    spoken: dict[str, list[dict[str, str]]] = defaultdict(list)
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            spoken[row["speaker"]].append(row)
    return [
        Person(
            speaker,
            corpus,
            rows[0]["gender"],
            rows[0].get("age_group") or "",
            rows[0]["split"],
            tuple(Utterance(table.parent / row["path"], speaker, row["text"]) for row in rows),
        )
        for speaker, rows in sorted(spoken.items())
    ]


def generic_recordings(people: Mapping[str, Sequence[Person]]) -> list[Utterance]:
    """Training recordings of all data sets, which widths are found on; the same in every experiment."""
    spoken = [
        utterance
        for some in people.values()
        for person in some
        if person.split == "train"
        for utterance in person.utterances
    ]
    return random.Random(0).sample(spoken, min(_GENERIC_CLIPS, len(spoken)))


def first_seconds(utterances: Sequence[Utterance], seconds: float, rate: int, least: int) -> tuple[Clip, ...]:
    """Clips of exactly that many seconds in all, or of all there is; the last is cut.

    Args:
        utterances: Taken in their order.
        seconds: Of audio.
        rate: Of the samples, Hz.
        least: Samples that a clip must have; a shorter rest is left out.
    """
    left, found = round(seconds * rate), []
    for utterance in utterances:
        clip = read_clip(utterance.path, rate)
        samples = clip.samples[:left]
        if samples.size < least:
            break
        found.append(dataclasses.replace(clip, samples=samples, seconds=samples.size / rate))
        left -= samples.size
    return tuple(found)
