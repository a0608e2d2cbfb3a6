"""Does a model gain from its user's own voice? On the user, on others alike and unlike, on a mix, on nobody.

    bitvox reproduce speakers

One half of a speaker's recordings calibrates and the other judges; then the halves swap. Every set has the
same seconds. A donor takes the user's place: a speaker of the same gender and age group, of the other gender,
of the other age group; or training speakers in turn (`mix`); or nobody. The rows of `own_share` between 0 and
1 mix the user's second moments with those of a longer generic set.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bitvox.benchmarks.dataset import Dataset, Utterance
from bitvox.benchmarks.experiments.experiment import Options, Split
from bitvox.benchmarks.experiments.fixed_widths import FixedWidths
from bitvox.benchmarks.experiments.judge import Judge
from bitvox.benchmarks.experiments.people import Person, first_seconds, generic_recordings, read_people
from bitvox.benchmarks.experiments.provenance import commit, provenance
from bitvox.benchmarks.experiments.results import Notebook, cell_key
from bitvox.benchmarks.experiments.speaker_rows import Arm, Source, SpeakerRow, SpeakersDocument, contrasts
from bitvox.benchmarks.experiments.speech import AN4, SPEECHOCEAN, gather, speech_folder
from bitvox.compiler.frontend.audio import Clip
from bitvox.errors import InputError
from bitvox.progress import Progress, no_progress
from bitvox.request import CompileRequest
from bitvox.store import default_store
from bitvox.voice import read_voice

SEED = 0
DRAWS = 5
SHARES = (0.25, 0.5)

# Most speakers of each gender and age group, and most recordings of a half that judge.
_SPEAKERS = {AN4: 7, SPEECHOCEAN: 3}
_RECORDINGS = 6


ARMS = (
    Arm("auto", 2.5, 10.0, SHARES),
    Arm("myqasr", 2.5, 10.0),
    Arm("auto", 4.0, 10.0),
    Arm("myqasr", 4.0, 10.0),
    Arm("auto", 2.5, 40.0, (0.5,)),
)


@dataclass(frozen=True)
class Setting:
    """What the experiment runs on.

    Attributes:
        people: Data set -> everybody in it.
        judged: Data set -> most speakers of each gender and age group that are judged.
        generic_seconds: Of the generic set that a user's share is taken beside.
    """

    model: str
    people: Mapping[str, Sequence[Person]]
    split: Split = "test"
    judged: Mapping[str, int] | None = None
    arms: tuple[Arm, ...] = ARMS
    draws: int = DRAWS
    generic_seconds: float = 240.0


@dataclass(frozen=True)
class _Model:
    """One quantised model before it is made: what calibrates it, and whom it is judged on."""

    arm: Arm
    corpus: str
    source: tuple[Source, str, int]  # whose clips: source, donor, half
    own_share: float
    targets: tuple[tuple[Person, int, Source], ...]


def speakers(
    out: Path, setting: Setting, progress: Progress = no_progress, arguments: Sequence[str] = ()
) -> SpeakersDocument:
    """Measure every row that the file does not have."""
    with tempfile.TemporaryDirectory() as scratch:
        bench = _Bench(setting, Path(scratch))
        data = {
            corpus: f"{len(chosen)} {setting.split} speakers, halves swapped"
            for corpus, chosen in bench.judged.items()
        }
        models = list(_models(setting, bench.judged))
        keys = [bench.keys(model) for model in models]
        every = [key for some in keys for key in some]
        data["generic"] = f"{setting.generic_seconds:g} s of training speakers"
        data["rows planned"] = str(len(every))
        found = provenance("speakers", arguments, setting.model, bench.voice.model.fingerprint, data)
        notebook = Notebook(out, SpeakersDocument, f"speakers_{setting.split}", found)
        notebook.keep(every)
        try:
            for number, (model, some) in enumerate(zip(models, keys, strict=True)):
                progress("speakers", number, len(models))
                if any(notebook.get(key) is None for key in some):
                    notebook.extend(bench.rows(model, some))
            progress("speakers", len(models), len(models))
        finally:  # a run that is stopped says what its rows say
            rows = [row for key in every if (row := notebook.get(key)) is not None]
            document = notebook.write(every, tuple(contrasts(setting.arms, bench.judged, rows)))
    assert isinstance(document, SpeakersDocument)
    return document


def chosen_people(setting: Setting, corpus: str) -> list[Person]:
    """The speakers who are judged, drawn by seed from each gender and age group; those with two halves."""
    most = (setting.judged or _SPEAKERS)[corpus]
    found: list[Person] = []
    kinds = sorted({(person.gender, person.age_group) for person in setting.people[corpus]})
    for kind in kinds:
        group = [
            person
            for person in setting.people[corpus]
            if (person.gender, person.age_group) == kind
            and person.split == setting.split
            and len(person.utterances) > 1
        ]
        found += random.Random(f"{SEED} {corpus} {kind}").sample(group, min(most, len(group)))
    return found


def donors(person: Person, people: Sequence[Person]) -> dict[Source, Person]:
    """Who takes a speaker's place, the next of that kind in the order of the draw."""
    wanted: dict[Source, tuple[str, str]] = {
        "same kind": (person.gender, person.age_group),
        "other gender": ("m" if person.gender == "f" else "f", person.age_group),
        "other age": (person.gender, {"child": "adult", "adult": "child"}.get(person.age_group, "?")),
    }
    place = people.index(person)
    after = [*people[place + 1 :], *people[:place]]
    found: dict[Source, Person] = {}
    for source, kind in wanted.items():
        some = [other for other in after if (other.gender, other.age_group) == kind]
        if some:
            found[source] = some[0] if source == "same kind" else some[place % len(some)]
    return found


def _models(setting: Setting, judged: Mapping[str, Sequence[Person]]) -> Iterator[_Model]:
    """Arm by arm: what asks for one model once, and judges it on all whom it is for."""
    for corpus, people in judged.items():
        yield _Model(
            Arm("auto", 32.0, 0.0),
            corpus,
            ("full precision", "", 0),
            1.0,
            _everyone(people, "full precision"),
        )
    for arm in setting.arms:
        for corpus, people in judged.items():
            yield _Model(arm, corpus, ("none", "", 0), 1.0, _everyone(people, "none"))
            for draw in range(setting.draws):
                yield _Model(arm, corpus, ("mix", str(draw), 0), 1.0, _everyone(people, "mix"))
            if arm.shares:
                yield _Model(arm, corpus, ("generic", "0", 0), 1.0, _everyone(people, "generic"))
            for person in people:
                for half in (0, 1):
                    targets: list[tuple[Person, int, Source]] = [(person, 1 - half, "own")]
                    for other in people:
                        for source, donor in donors(other, people).items():
                            if donor is person:
                                targets.append((other, 1 - half, source))
                    yield _Model(arm, corpus, ("own", person.speaker, half), 1.0, tuple(targets))
            for share in arm.shares:
                for person, half, _ in _everyone(people, "own"):
                    target: tuple[Person, int, Source] = (person, 1 - half, "own")
                    yield _Model(arm, corpus, ("own", person.speaker, half), share, (target,))


def _everyone(people: Sequence[Person], source: Source) -> tuple[tuple[Person, int, Source], ...]:
    return tuple((person, half, source) for person in people for half in (0, 1))


class _Bench:
    """One process's model and judges."""

    def __init__(self, setting: Setting, scratch: Path) -> None:
        self.setting = setting
        self.judged = {corpus: chosen_people(setting, corpus) for corpus in setting.people}
        generic = generic_recordings(setting.people)
        audio = gather(generic, scratch / "clips")
        self._base = CompileRequest(setting.model, audio=audio, activations="dynamic", seed=SEED)
        self._store = default_store()
        self.voice = read_voice(self._base, self._store, no_progress)
        self._generic = [utterance.path.name for utterance in generic]
        self._judges: dict[str, tuple[Judge, FixedWidths]] = {}

    def keys(self, model: _Model) -> list[str]:
        """One for each row of a model."""
        return [
            cell_key(
                fingerprint=self.voice.model.fingerprint,
                arm=(model.arm.method, model.arm.bits, model.arm.seconds),
                source=model.source,
                share=model.own_share,
                target=(model.corpus, person.speaker, half, source),
                settings=(self.setting.generic_seconds, _RECORDINGS, self._generic),
            )
            for person, half, source in model.targets
        ]

    def rows(self, model: _Model, keys: Sequence[str]) -> Iterator[SpeakerRow]:
        """Make the model and judge it."""
        judge, widths = self._judge(model.corpus)
        kind, donor, _ = model.source
        clips = self._clips(model)
        bytes_ = 0
        if kind == "full precision":
            module = judge.voice.model.module
        else:
            generic = self._generic_set(model.corpus) if model.own_share < 1 else ()
            plan, module = widths.model(model.arm.method, model.arm.bits, clips, generic, model.own_share)
            bytes_ = plan.total_bytes
        calibrating = {clip.path for clip in clips or ()}
        for key, (person, half, source) in zip(keys, model.targets, strict=True):
            spoken = {utterance.path for utterance in person.half(half)}
            if spoken & calibrating:
                raise InputError(f"{person.speaker}: half {half} calibrates and is judged on")
            recordings = judge.judged.utterances
            part = judge.only([place for place, one in enumerate(recordings) if one.path in spoken])
            heard = part.hear(module)
            counts = part.count(heard.texts)
            yield SpeakerRow(
                key=key,
                commit=commit(),
                corpus=model.corpus,
                speaker=person.speaker,
                half=half,
                source=source,
                donor=donor,
                own_share=model.own_share,
                method=model.arm.method if kind != "full precision" else kind,
                bits=model.arm.bits,
                asked_seconds=model.arm.seconds,
                seconds=round(sum(clip.seconds for clip in clips or ()), 3),
                bytes=bytes_,
                errors=tuple(map(int, counts.errors)),
                words=tuple(map(int, counts.length)),
                divergences=tuple(round(one, 6) for one in heard.divergences),
                frames=heard.frames,
            )

    def _judge(self, corpus: str) -> tuple[Judge, FixedWidths]:
        if corpus not in self._judges:
            every = tuple(
                utterance
                for person in self.judged[corpus]
                for half in (0, 1)
                for utterance in person.half(half)[:_RECORDINGS]
            )
            judge = Judge(self.voice, Dataset(Path(corpus), every), self._store)
            # Everybody's halves calibrate in turn: `rows` checks that none is judged by itself.
            self._judges[corpus] = judge, FixedWidths(judge.only(()), self._base)
        return self._judges[corpus]

    def _clips(self, model: _Model) -> tuple[Clip, ...] | None:
        kind, donor, half = model.source
        if kind in ("none", "full precision"):
            return None
        if kind == "generic":
            return self._generic_set(model.corpus)
        if kind == "mix":
            return self._cut(self._training(model.corpus, donor), model.arm.seconds)
        person = next(one for one in self.judged[model.corpus] if one.speaker == donor)
        return self._cut(person.half(half), model.arm.seconds)

    def _generic_set(self, corpus: str) -> tuple[Clip, ...]:
        return self._cut(self._training(corpus, "generic"), self.setting.generic_seconds)

    def _cut(self, utterances: Sequence[Utterance], seconds: float) -> tuple[Clip, ...]:
        processor = self.voice.model.processor
        return first_seconds(utterances, seconds, processor.sampling_rate, processor.minimum_samples)

    def _training(self, corpus: str, draw: str) -> list[Utterance]:
        """Recordings of training speakers, one of each in turn."""
        order = random.Random(f"{SEED} {corpus} {draw}")
        people = [person for person in self.setting.people[corpus] if person.split == "train"]
        return [order.choice(person.utterances) for person in order.sample(people, len(people))]


def measure(options: Options, progress: Progress) -> SpeakersDocument:
    """`bitvox reproduce speakers`; a limit is one on the speakers of each gender and age group."""
    speech = speech_folder()
    torch.set_num_threads(1)
    people = {corpus: read_people(speech, corpus) for corpus in (AN4, SPEECHOCEAN)}
    judged = {name: min(options.limit or count, count) for name, count in _SPEAKERS.items()}
    setting = Setting(options.model, people, options.split, judged)
    return speakers(options.out, setting, progress, options.arguments)
