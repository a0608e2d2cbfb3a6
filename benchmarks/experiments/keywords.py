"""Keywords of each speaker: calibrated on the speaker, on another one, on a mix, on nobody; at equal clips.

    bitvox reproduce keywords

Arabic commands of twenty speakers, each judged by the reference model that was never taught that speaker.
Of a speaker's ten takes of each keyword five are kept to calibrate from and five to judge on, one in each
draw: no clip is on both sides. Draws are measured one after the other, so that a run that is stopped has all
speakers in every draw that it finished.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from bitvox.benchmarks.dataset import Dataset, Utterance, read_dataset
from bitvox.benchmarks.experiments.experiment import Options
from bitvox.benchmarks.experiments.judge import Judge
from bitvox.benchmarks.experiments.keyword_rows import KeywordRow, KeywordsDocument, Source, pooled
from bitvox.benchmarks.experiments.provenance import commit, provenance
from bitvox.benchmarks.experiments.results import Notebook, cell_key
from bitvox.benchmarks.experiments.speech import COMMANDS, by_speaker, described, speech_folder
from bitvox.benchmarks.reference_model.train_keywords import Half, taught_speakers
from bitvox.compiler.frontend.audio import Clip, read_clip
from bitvox.compiler.passes.bytes import average_bits
from bitvox.errors import InputError
from bitvox.progress import Progress, no_progress
from bitvox.request import CompileRequest, Order
from bitvox.store import FileStore, default_store
from bitvox.voice import Voice, read_voice

SEED = 0
TAKES = 5
"""Of a speaker's takes of a keyword, those that are judged on: one in each draw."""

DRAWS = {5: 5, 20: 1}
"""Number of clips to calibrate with -> draws: five clips as in the paper, and what more of them change."""

# In the order in which they are measured.
BITS = (2.2, 3.0, 2.5, 4.0, 8.0)

MODELS: dict[str, Half] = {"reference-keywords": "first", "reference-keywords-swapped": "second"}

_SOURCES: tuple[Source, ...] = ("own", "other", "mix")
_ORDERS: tuple[Order, ...] = ("ascending", "descending")


@dataclass(frozen=True)
class Setting:
    """What the experiment runs on.

    Attributes:
        strangers: Checkpoint -> recordings of the speakers that it was never taught.
        bits: Averages whose bytes are the budgets.
        draws: Number of clips to calibrate with -> draws of calibration and judged clips, at most `takes`.
        takes: Of each keyword and speaker that are judged on; the others calibrate.
    """

    strangers: Mapping[str, Dataset]
    bits: tuple[float, ...] = BITS
    draws: Mapping[int, int] = field(default_factory=lambda: DRAWS)
    takes: int = TAKES


@dataclass(frozen=True)
class Drawn:
    """The clips of one speaker in one draw: to calibrate from, in random order, and to judge on."""

    calibration: tuple[Utterance, ...]
    judged: tuple[Utterance, ...]


def draw_speaker(spoken: Sequence[Utterance], draw: int, judged_takes: int) -> Drawn:
    """One draw of a speaker's clips; what can calibrate in any draw is judged in none."""
    sides = random.Random(f"{SEED} {spoken[0].speaker}")
    calibration: list[Utterance] = []
    judged: list[Utterance] = []
    for keyword in sorted({utterance.text or "" for utterance in spoken}):
        takes = [utterance for utterance in spoken if utterance.text == keyword]
        sides.shuffle(takes)
        judged.append(takes[draw])
        calibration += takes[judged_takes:]
    random.Random(f"{SEED} {spoken[0].speaker} {draw}").shuffle(calibration)
    return Drawn(tuple(calibration), tuple(judged))


def calibration_clips(
    drawn: Mapping[str, Drawn], speaker: str, source: Source, draw: int, count: int
) -> tuple[Utterance, ...]:
    """`count` clips to calibrate for a speaker with.

    `other` is one other speaker of the same model's strangers, another one in each draw; `mix` takes in turn
    from that half of the strangers that the speaker is not in. Without a source the clips are the speaker's
    own, which nothing that is measured looks at.
    """
    names = list(drawn)
    place = names.index(speaker)
    if source == "mix":
        half = (place + 1) % 2
        others = [drawn[name].calibration for name in names[half::2]]
        return tuple(others[turn % len(others)][turn // len(others)] for turn in range(count))
    step = 1 + draw % (len(names) - 1) if source == "other" else 0
    return drawn[names[(place + step) % len(names)]].calibration[:count]


@dataclass(frozen=True)
class _Wanted:
    """A cell before it is measured."""

    key: str
    speaker: str
    draw: int
    source: Source
    clips: tuple[Utterance, ...]
    bits: float | None
    request: CompileRequest | None


def keywords(
    out: Path, setting: Setting, progress: Progress = no_progress, arguments: Sequence[str] = ()
) -> KeywordsDocument:
    """Measure every cell that the file does not have."""
    store = default_store()
    benches = [Bench(model, dataset, setting, store) for model, dataset in setting.strangers.items()]
    names = " and ".join(setting.strangers)
    data = {f"judged on, {model}": described(dataset) for model, dataset in setting.strangers.items()}
    fingerprint = cell_key(models=[bench.voice.model.fingerprint for bench in benches])
    found = provenance("keywords", arguments, names, fingerprint, data)
    notebook = Notebook(out, KeywordsDocument, "keywords", found)
    wanted = [
        (bench, one)
        for count, draws in setting.draws.items()
        for draw, bits, bench in itertools.product(range(draws), setting.bits, benches)
        for one in bench.wanted(count, draw, bits)
    ]
    # What needs no clip is the same whatever their number.
    keys = list(dict.fromkeys(one.key for _, one in wanted))
    notebook.keep(keys)
    try:
        for bench, one in wanted:
            if notebook.get(one.key) is None:
                progress("keywords", keys.index(one.key), len(keys))
                notebook.add(bench.row(one))
        progress("keywords", len(keys), len(keys))
    finally:  # what is finished can be read, however the run ends
        rows = [row for key in keys if (row := notebook.get(key)) is not None]
        document = notebook.write(keys, tuple(pooled(rows)))
    assert isinstance(document, KeywordsDocument)
    return document


class Bench:
    """One model, its strangers, and what its bundles take."""

    def __init__(self, model: str, dataset: Dataset, setting: Setting, store: FileStore) -> None:
        self.setting, self.store = setting, store
        self.speakers = by_speaker(dataset)
        # Only sizes are taken from this voice: budgets are the same whoever calibrates.
        audio = next(iter(self._drawn(0).values())).calibration[0].path
        self.base = CompileRequest(model, audio=audio, activations="dynamic", seed=SEED)
        self.voice: Voice = read_voice(self.base, store, no_progress)
        sized = Judge(self.voice, Dataset(dataset.origin, ()), store)
        ladder = sized.ladder(self.base)
        self.budgets = {bits: sized.budget(self.base, ladder, bits) for bits in setting.bits}
        self._judges: dict[tuple[str, int], Judge] = {}

    def wanted(self, count: int, draw: int, bits: float) -> Iterator[_Wanted]:
        """The cells of a budget in a draw, those that need no clips among them."""
        drawn = self._drawn(draw)
        for speaker in drawn:
            yield self._cell(drawn, speaker, draw, "none", 0, None, None)
            yield self._cell(drawn, speaker, draw, "none", 0, bits, self._data_free(draw, bits))
            for source, request in itertools.product(_SOURCES, self._methods()):
                asked = replace(request, budget=self.budgets[bits])
                yield self._cell(drawn, speaker, draw, source, count, bits, asked)

    def row(self, one: _Wanted) -> KeywordRow:
        """A finished cell."""
        judge = self.judge(one.speaker, one.draw).calibrated_on([self._clip(clip) for clip in one.clips])
        fields = {
            "key": one.key,
            "commit": commit(),
            "speaker": one.speaker,
            "draw": one.draw,
            "source": one.source,
            "bits": one.bits,
            "clips": len(one.clips) if one.source != "none" else 0,
        }
        if one.request is None:
            heard = judge.hear(self.voice.model.module)
        else:
            plan, module = judge.quantised(one.request)
            heard = judge.hear(module)
            fields |= {
                "method": one.request.method,
                "order": one.request.order if one.request.method == "myqasr" else None,
                "bytes": plan.total_bytes,
                "average_bits": round(average_bits(self.voice.model, plan), 4),
            }
        wrong = judge.count(heard.texts).errors
        return KeywordRow.model_validate(
            fields
            | {"right": "".join("0" if error else "1" for error in wrong), "divergence": heard.divergence}
        )

    def _drawn(self, draw: int) -> dict[str, Drawn]:
        return {
            speaker: draw_speaker(spoken, draw, self.setting.takes)
            for speaker, spoken in self.speakers.items()
        }

    def _data_free(self, draw: int, bits: float) -> CompileRequest:
        """A plan that no recording has a say in: bits in an order drawn by seed, rounding to nearest."""
        return replace(
            self.base, method="myqasr", order="shuffled", seed=SEED + draw, budget=self.budgets[bits]
        )

    def _methods(self) -> Iterator[CompileRequest]:
        yield replace(self.base, method="auto")
        for order in _ORDERS:
            yield replace(self.base, method="myqasr", order=order)

    def _cell(
        self,
        drawn: Mapping[str, Drawn],
        speaker: str,
        draw: int,
        source: Source,
        count: int,
        bits: float | None,
        request: CompileRequest | None,
    ) -> _Wanted:
        clips = calibration_clips(drawn, speaker, source, draw, count or 1)
        key = cell_key(
            fingerprint=self.voice.model.fingerprint,
            request=request and replace(request, audio=None),
            source=source,
            calibration=[_name(clip) for clip in clips],
            judged=[_name(clip) for clip in drawn[speaker].judged],
        )
        return _Wanted(key, speaker, draw, source, clips, bits, request)

    def judge(self, speaker: str, draw: int) -> Judge:
        """The judge of a speaker's clips of a draw; those of one draw are kept."""
        if (speaker, draw) not in self._judges:
            self._judges = {place: judge for place, judge in self._judges.items() if place[1] == draw}
            judged = self._drawn(draw)[speaker].judged
            self._judges[speaker, draw] = Judge(self.voice, Dataset(judged[0].path, judged), self.store)
        return self._judges[speaker, draw]

    def _clip(self, utterance: Utterance) -> Clip:
        return read_clip(utterance.path, self.voice.model.processor.sampling_rate)


def _name(clip: Utterance) -> str:
    return f"{clip.text}/{clip.path.name}"


def measure(options: Options, progress: Progress) -> KeywordsDocument:
    """`bitvox reproduce keywords`; a limit is one on the speakers of each model."""
    table = speech_folder() / COMMANDS / "manifest.csv"
    everyone = read_dataset(table)
    names = sorted(by_speaker(everyone))
    if options.limit == 1:
        raise InputError("limit 1: a speaker is compared with others; keep 2 or more of each model")
    strangers = {}
    for model, half in MODELS.items():
        kept = [name for name in names if name not in taught_speakers(names, half)][: options.limit]
        spoken = tuple(one for one in everyone.utterances if one.speaker in kept)
        strangers[model] = Dataset(table, spoken)
    torch.set_num_threads(1)
    return keywords(options.out, Setting(strangers), progress, options.arguments)
