"""Rows of the experiment on speakers, and what they say of one source of calibration against another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bitvox.benchmarks.experiments.contrasts import Contrast, Pair, Told, contrast
from bitvox.benchmarks.experiments.fixed_widths import Method
from bitvox.benchmarks.experiments.people import Person
from bitvox.benchmarks.experiments.results import Cell, Document

Source = Literal["own", "same kind", "other gender", "other age", "mix", "generic", "none", "full precision"]


@dataclass(frozen=True)
class Arm:
    """A method at a budget, and what is tried there.

    Attributes:
        bits: Average whose bytes are the budget.
        seconds: Of each calibration set; a speaker who has less gives what there is.
        shares: Weights of the user beside the generic set that are tried too.
    """

    method: Method
    bits: float
    seconds: float
    shares: tuple[float, ...] = ()


class SpeakerRow(Cell):
    """One half of a speaker's recordings, heard by one model.

    Attributes:
        half: That is judged; the other one calibrates where the source is a speaker.
        source: Who calibrated the model; `donor`: that speaker, or the number of a draw.
        own_share: Weight of the source's second moments beside the generic set's.
        seconds: That calibrated.
        errors, words: Of each recording; divergences: KL(full precision || model), summed over its frames.
    """

    corpus: str
    speaker: str
    half: int
    source: Source
    donor: str = ""
    own_share: float = 1.0
    method: str
    bits: float
    asked_seconds: float
    seconds: float
    bytes: int
    errors: tuple[int, ...]
    words: tuple[int, ...]
    divergences: tuple[float, ...]
    frames: tuple[int, ...]


class SpeakersDocument(Document[SpeakerRow, Contrast]):
    """`speakers_dev.json` and `speakers_test.json`."""


def contrasts(
    arms: Sequence[Arm], judged: Mapping[str, Sequence[Person]], rows: Sequence[SpeakerRow]
) -> Iterator[Contrast]:
    """The user against everyone else, and every share of the user against the generic set."""
    found: dict[tuple[object, ...], list[SpeakerRow]] = {}
    for row in rows:
        name = (row.corpus, row.method, row.bits, row.asked_seconds, row.source, row.own_share)
        found.setdefault(name, []).append(row)
    for arm in arms:
        for corpus, people in judged.items():
            here = (corpus, arm.method, arm.bits, arm.seconds)
            own = found.get((*here, "own", 1.0), [])
            for against in ("same kind", "other gender", "other age", "mix", "none"):
                others = found.get((*here, against, 1.0), [])
                yield from _grouped(people, own, others, arm, corpus, "own", against)
            generic = found.get((*here, "generic", 1.0), [])
            for share in (*arm.shares, 1.0):
                some = found.get((*here, "own", share), [])
                on = f"own share {share:g}"
                yield from _grouped(people, some, generic, arm, corpus, on, "generic")


def _grouped(
    people: Sequence[Person],
    ours: Sequence[SpeakerRow],
    theirs: Sequence[SpeakerRow],
    arm: Arm,
    corpus: str,
    on: str,
    against: str,
) -> Iterator[Contrast]:
    ages = sorted({person.age_group for person in people if person.age_group})
    for group in ("all", *(ages if len(ages) > 1 else ())):
        wanted = {person.speaker for person in people if group in ("all", person.age_group)}
        pairs = list(_pairs([row for row in ours if row.speaker in wanted], theirs))
        if pairs:
            on_what = f"{on}, {arm.seconds:g} s"
            name = {"child": "children", "adult": "adults"}.get(group, group)
            yield contrast(pairs, corpus, name, arm.method, arm.bits, on_what, against)


def _pairs(ours: Sequence[SpeakerRow], theirs: Sequence[SpeakerRow]) -> Iterator[Pair]:
    """Rows of the same half; of several draws each."""
    others: dict[tuple[str, int], list[SpeakerRow]] = {}
    for row in theirs:
        others.setdefault((row.speaker, row.half), []).append(row)
    for row in ours:
        for other in others.get((row.speaker, row.half), ()):
            yield row.speaker, _told(row), _told(other)


def _told(row: SpeakerRow) -> Told:
    return Told(sum(row.errors), sum(row.words), sum(row.divergences), sum(row.frames))
