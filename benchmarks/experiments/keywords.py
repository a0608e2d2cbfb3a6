"""Keywords of each speaker: calibrated on the speaker, on another one, on a mix, on nobody; at equal clips.

    bitvox reproduce keywords

Arabic commands of twenty speakers, each judged by the reference model that was never taught that speaker.
Of a speaker's ten takes of each keyword five are kept to calibrate from and five to judge on, one in each
draw: no clip is on both sides. Draws are measured one after the other, so that a run that is stopped has all
speakers in every draw that it finished.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from bitvox.benchmarks.dataset import Dataset, Utterance, read_dataset
from bitvox.benchmarks.experiments.experiment import Options
from bitvox.benchmarks.experiments.judge import Judge
from bitvox.benchmarks.experiments.keyword_rows import KeywordRow, KeywordsDocument, Source, pooled
from bitvox.benchmarks.experiments.provenance import commit, provenance
from bitvox.benchmarks.experiments.results import Notebook, cell_key
from bitvox.benchmarks.experiments.speech import COMMANDS, by_speaker, speech_folder
from bitvox.benchmarks.reference_model.train_keywords import Half, taught_speakers
from bitvox.compiler.frontend.audio import Clip, read_clip
from bitvox.compiler.passes.bytes import average_bits
from bitvox.progress import Progress, no_progress
from bitvox.request import CompileRequest, Order
from bitvox.store import FileStore, default_store
from bitvox.voice import Voice, read_voice

SEED = 0
DRAWS = 5
CLIPS = (5, 20)
BITS = (2.2, 2.5, 3.0, 4.0, 6.0, 8.0)

MODELS: dict[str, Half] = {"reference-keywords": "first", "reference-keywords-swapped": "second"}

_ORDERS: tuple[Order, ...] = ("ascending", "descending")


@dataclass(frozen=True)
class Setting:
    """What the experiment runs on.

    Attributes:
        strangers: Checkpoint -> recordings of the speakers that it was never taught.
        bits: Averages whose bytes are the budgets.
        clips: Numbers of clips to calibrate with.
        draws: Of calibration and judged clips.
    """

    strangers: Mapping[str, Dataset]
    bits: tuple[float, ...] = BITS
    clips: tuple[int, ...] = CLIPS
    draws: int = DRAWS


@dataclass(frozen=True)
class Drawn:
    """The clips of one speaker in one draw: to calibrate from, in random order, and to judge on."""

    calibration: tuple[Utterance, ...]
    judged: tuple[Utterance, ...]


def draw_speaker(spoken: Sequence[Utterance], draw: int, draws: int) -> Drawn:
    """One draw of a speaker's clips; what can calibrate in any draw is judged in none."""
    sides = random.Random(f"{SEED} {spoken[0].speaker}")
    calibration: list[Utterance] = []
    judged: list[Utterance] = []
    for keyword in sorted({utterance.text or "" for utterance in spoken}):
        takes = [utterance for utterance in spoken if utterance.text == keyword]
        sides.shuffle(takes)
        judged.append(takes[draw])
        calibration += takes[draws:]
    random.Random(f"{SEED} {spoken[0].speaker} {draw}").shuffle(calibration)
    return Drawn(tuple(calibration), tuple(judged))


def calibration_clips(
    drawn: Mapping[str, Drawn], speaker: str, source: Source, draw: int, count: int
) -> tuple[Utterance, ...]:
    """`count` clips to calibrate for a speaker with.

    `other` is one other speaker of the same model's strangers, another one in each draw; `mix` takes from all
    others in turn. Without a source the clips are the speaker's own, which nothing that is measured looks at.
    """
    names = list(drawn)
    place = names.index(speaker)
    others = [names[(place + step) % len(names)] for step in range(1, len(names))]
    if source == "mix":
        turns = (
            drawn[others[(draw + turn) % len(others)]].calibration[turn // len(others)]
            for turn in range(count)
        )
        return tuple(turns)
    chosen = others[draw % len(others)] if source == "other" else speaker
    return drawn[chosen].calibration[:count]


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
    data = {
        model: f"judged on {len(by_speaker(found))} speakers" for model, found in setting.strangers.items()
    }
    fingerprint = cell_key(models=[bench.voice.model.fingerprint for bench in benches])
    found = provenance("keywords", arguments, names, fingerprint, data)
    notebook = Notebook(out, KeywordsDocument, "keywords", found)
    wanted = [(bench, list(bench.wanted(draw))) for draw in range(setting.draws) for bench in benches]
    keys = [one.key for _, cells in wanted for one in cells]
    notebook.keep(keys)
    done = 0
    for bench, cells in wanted:
        for one in cells:
            progress("keywords", done, len(keys))
            if notebook.get(one.key) is None:
                notebook.add(bench.row(one))
            done += 1
    progress("keywords", done, len(keys))
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
        self._last: tuple[tuple[str, int], Judge] | None = None

    def wanted(self, draw: int) -> Iterator[_Wanted]:
        """The cells of a draw: a speaker's together, since they are judged on the same clips."""
        drawn = self._drawn(draw)
        for speaker in drawn:
            yield self._cell(drawn, speaker, draw, "none", 0, None, None)
            for bits in self.setting.bits:
                yield self._cell(drawn, speaker, draw, "none", 0, bits, self._data_free(draw, bits))
            for count in self.setting.clips:
                for source in ("own", "other", "mix"):
                    for request in self._methods():
                        for bits in self.setting.bits:
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
            speaker: draw_speaker(spoken, draw, self.setting.draws)
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
        """The judge of a speaker's clips of a draw; that of the last call is kept."""
        if self._last is None or self._last[0] != (speaker, draw):
            judged = self._drawn(draw)[speaker].judged
            self._last = (speaker, draw), Judge(self.voice, Dataset(judged[0].path, judged), self.store)
        return self._last[1]

    def _clip(self, utterance: Utterance) -> Clip:
        return read_clip(utterance.path, self.voice.model.processor.sampling_rate)


def _name(clip: Utterance) -> str:
    return f"{clip.text}/{clip.path.name}"


def measure(options: Options, progress: Progress) -> KeywordsDocument:
    """`bitvox reproduce keywords`; a limit is one on the speakers of each model."""
    table = speech_folder() / COMMANDS / "manifest.csv"
    everyone = read_dataset(table)
    names = sorted(by_speaker(everyone))
    strangers = {}
    for model, half in MODELS.items():
        kept = [name for name in names if name not in taught_speakers(names, half)][: options.limit]
        spoken = tuple(one for one in everyone.utterances if one.speaker in kept)
        strangers[model] = Dataset(table, spoken)
    torch.set_num_threads(1)
    return keywords(options.out, Setting(strangers), progress, options.arguments)
