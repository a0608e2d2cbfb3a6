"""Keywords of each speaker: calibrated on the speaker, on another one, on a mix, on nobody; at equal clips.

    bitvox reproduce keywords

Arabic commands of twenty speakers, each judged by the reference model that was never taught that speaker.
Widths of the default method are those that it finds on the speakers that were taught, so that sources differ
in the rounding, at equal bytes; myQASR, whose rounding looks at no recording, allocates by each source.
Of a speaker's ten takes of each keyword five are kept to calibrate from and five to judge on, one in each
draw: no clip is on both sides. Draws are measured one after the other, so that a run that is stopped has all
speakers in every draw that it finished.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from bitvox.benchmarks.dataset import Dataset, Utterance, read_dataset
from bitvox.benchmarks.experiments.experiment import Options
from bitvox.benchmarks.experiments.fixed_widths import FixedWidths
from bitvox.benchmarks.experiments.judge import Judge
from bitvox.benchmarks.experiments.keyword_rows import KeywordRow, KeywordsDocument, Source, pooled
from bitvox.benchmarks.experiments.provenance import commit, provenance
from bitvox.benchmarks.experiments.results import Notebook, cell_key
from bitvox.benchmarks.experiments.speech import COMMANDS, by_speaker, described, speech_folder
from bitvox.benchmarks.reference_model.train_keywords import Half, taught_speakers
from bitvox.compiler.frontend.audio import Clip, read_clip
from bitvox.compiler.passes.bytes import average_bits
from bitvox.compiler.passes.plan import QuantPlan
from bitvox.errors import InputError
from bitvox.progress import Progress, no_progress
from bitvox.request import CompileRequest, Order
from bitvox.store import FileStore, default_store
from bitvox.voice import Voice, read_voice

SEED = 0
TAKES = 5
"""Of a speaker's takes of a keyword, those that are judged on: one in each draw."""

MODELS: dict[str, Half] = {"reference-keywords": "first", "reference-keywords-swapped": "second"}

_SOURCES: tuple[Source, ...] = ("own", "other", "mix")
_ORDERS: tuple[Order, ...] = ("ascending", "descending")


@dataclass(frozen=True)
class Arm:
    """Models of some budgets (bits a weight), calibrated with that many clips, in some draws."""

    clips: int
    bits: tuple[float, ...]
    draws: tuple[int, ...]


# In the order in which they are measured: five clips as in the paper at every budget, and what more of them
# change; then the draws that tell chance from the speaker.
ARMS = (
    Arm(5, (2.2, 3.0, 2.5, 4.0, 8.0), (0,)),
    Arm(20, (2.2, 3.0), (0,)),
    Arm(5, (2.2, 3.0), (1, 2, 3, 4)),
)


@dataclass(frozen=True)
class Setting:
    """What the experiment runs on.

    Attributes:
        strangers: Checkpoint -> recordings of the speakers that it was never taught.
        generic: Checkpoint -> recordings of speakers that it was, for the default method's widths.
        arms: What is measured, in this order; draws are below `takes`.
        takes: Of each keyword and speaker that are judged on; the others calibrate.
    """

    strangers: Mapping[str, Dataset]
    generic: Mapping[str, Sequence[Utterance]]
    arms: tuple[Arm, ...] = ARMS
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
    from that half of the strangers that the speaker is not in. There are none
    without a source.
    """
    if source == "none":
        return ()
    names = list(drawn)
    place = names.index(speaker)
    if source == "mix":
        half = (place + 1) % 2
        others = [drawn[name].calibration for name in names[half::2]]
        return tuple(others[turn % len(others)][turn // len(others)] for turn in range(count))
    step = 1 + draw % (len(names) - 1) if source == "other" else 0
    return drawn[names[(place + step) % len(names)]].calibration[:count]


@dataclass(frozen=True)
class _Model:
    """What is judged on the clips of a draw; an order is one of myQASR that looks at clips."""

    draw: int
    bits: float | None
    method: Literal["full precision", "auto", "myqasr"]
    order: Order | None = None


@dataclass(frozen=True)
class _Wanted:
    """A cell before it is measured."""

    key: str
    speaker: str
    source: Source
    clips: tuple[Utterance, ...]
    model: _Model


def keywords(
    out: Path, setting: Setting, progress: Progress = no_progress, arguments: Sequence[str] = ()
) -> KeywordsDocument:
    """Measure every cell that the file does not have."""
    store = default_store()
    benches = [Bench(model, setting, store) for model in setting.strangers]
    names = " and ".join(setting.strangers)
    data = {f"judged on, {model}": described(dataset) for model, dataset in setting.strangers.items()}
    fingerprint = cell_key(models=[bench.voice.model.fingerprint for bench in benches])
    found = provenance("keywords", arguments, names, fingerprint, data)
    notebook = Notebook(out, KeywordsDocument, "keywords", found)
    wanted = [
        (bench, one)
        for arm in setting.arms
        for draw, bits, bench in itertools.product(arm.draws, arm.bits, benches)
        for one in bench.wanted(arm.clips, draw, bits)
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
    """One model and its strangers."""

    def __init__(self, model: str, setting: Setting, store: FileStore) -> None:
        self.setting, self.store = setting, store
        self.speakers = by_speaker(setting.strangers[model])
        generic = setting.generic[model]
        self.base = CompileRequest(model, audio=generic[0].path, activations="dynamic", seed=SEED)
        voice = read_voice(self.base, store, no_progress)
        self.voice = replace(voice, calibration=tuple(self._clip(voice, one) for one in generic))
        self._generic = [_name(one) for one in generic]
        self._draw: tuple[int, Judge, FixedWidths] | None = None

    def wanted(self, count: int, draw: int, bits: float) -> Iterator[_Wanted]:
        """The cells of a budget in a draw, those that need no clips among them."""
        drawn = self._drawn(draw)
        for speaker in drawn:
            yield self._cell(drawn, speaker, "none", 0, _Model(draw, None, "full precision"))
            for method in ("auto", "myqasr"):
                yield self._cell(drawn, speaker, "none", 0, _Model(draw, bits, method))
            for source in _SOURCES:
                yield self._cell(drawn, speaker, source, count, _Model(draw, bits, "auto"))
                for order in _ORDERS:
                    yield self._cell(drawn, speaker, source, count, _Model(draw, bits, "myqasr", order))

    def row(self, one: _Wanted) -> KeywordRow:
        """A finished cell."""
        judge, widths = self.judged(one.model.draw)
        bytes_, bits, module = 0, 32.0, self.voice.model.module
        if one.model.bits is not None:
            plan, module = self._quantised(judge, widths, one.model.bits, one)
            bytes_, bits = plan.total_bytes, round(average_bits(self.voice.model, plan), 4)
        utterances = judge.judged.utterances
        part = judge.only([at for at, said in enumerate(utterances) if said.speaker == one.speaker])
        heard = part.hear(module)
        return KeywordRow(
            key=one.key,
            commit=commit(),
            speaker=one.speaker,
            draw=one.model.draw,
            source=one.source,
            clips=len(one.clips),
            method=one.model.method,
            order=one.model.order,
            bits=one.model.bits,
            bytes=bytes_,
            average_bits=bits,
            right="".join("0" if error else "1" for error in part.count(heard.texts).errors),
            divergence=heard.divergence,
        )

    def judged(self, draw: int) -> tuple[Judge, FixedWidths]:
        """The judge of all clips of a draw, and the default method's widths; those of the last are kept."""
        if self._draw is None or self._draw[0] != draw:
            clips = tuple(one for drawn in self._drawn(draw).values() for one in drawn.judged)
            judge = Judge(self.voice, Dataset(clips[0].path.parent, clips), self.store)
            self._draw = draw, judge, FixedWidths(judge, self.base)
        return self._draw[1:]

    def _quantised(
        self, judge: Judge, widths: FixedWidths, bits: float, one: _Wanted
    ) -> tuple[QuantPlan, torch.nn.Module]:
        clips = [self._clip(self.voice, clip) for clip in one.clips] or None
        if one.model.order is None or clips is None:
            return widths.model("auto" if one.model.method == "auto" else "myqasr", bits, clips)
        budget = widths.plan(bits).budget
        request = replace(self.base, method="myqasr", order=one.model.order, budget=budget)
        return judge.calibrated_on(clips).quantised(request)

    def _drawn(self, draw: int) -> dict[str, Drawn]:
        return {
            speaker: draw_speaker(spoken, draw, self.setting.takes)
            for speaker, spoken in self.speakers.items()
        }

    def _cell(
        self, drawn: Mapping[str, Drawn], speaker: str, source: Source, count: int, model: _Model
    ) -> _Wanted:
        clips = calibration_clips(drawn, speaker, source, model.draw, count)
        key = cell_key(
            fingerprint=self.voice.model.fingerprint,
            base=replace(self.base, audio=None),
            model=(model.bits, model.method, model.order),
            generic=self._generic,
            source=source,
            calibration=[_name(clip) for clip in clips],
            judged=[_name(clip) for clip in drawn[speaker].judged],
        )
        return _Wanted(key, speaker, source, clips, model)

    @staticmethod
    def _clip(voice: Voice, utterance: Utterance) -> Clip:
        return read_clip(utterance.path, voice.model.processor.sampling_rate)


def _name(clip: Utterance) -> str:
    return f"{clip.text}/{clip.path.name}"


def measure(options: Options, progress: Progress) -> KeywordsDocument:
    """`bitvox reproduce keywords`; a limit is one on the speakers of each model."""
    table = speech_folder() / COMMANDS / "manifest.csv"
    everyone = read_dataset(table)
    spoken = by_speaker(everyone)
    names = sorted(spoken)
    if options.limit == 1:
        raise InputError("limit 1: a speaker is compared with others; keep 2 or more of each model")
    strangers, generic = {}, {}
    for model, half in MODELS.items():
        taught = taught_speakers(names, half)
        kept = [name for name in names if name not in taught][: options.limit]
        strangers[model] = Dataset(table, tuple(one for name in kept for one in spoken[name]))
        # A keyword each, so that no clip is like another.
        generic[model] = [spoken[name][11 * place] for place, name in enumerate(taught)]
    torch.set_num_threads(1)
    return keywords(options.out, Setting(strangers, generic), progress, options.arguments)
