"""Three runtimes: the same budgets in each on real speech, and one plan in all of them, clip by clip.

    bitvox reproduce runtimes

All bundles are calibrated on the same clips of training speakers. At one budget the runtimes have different
plans, because they need different bytes beside the weights. One plan in all of them shows the runtimes alone:
where two compute the same integers, they should write the same texts.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bitvox.benchmarks import metrics
from bitvox.benchmarks.dataset import Dataset, Utterance, clusters
from bitvox.benchmarks.experiments.experiment import Options
from bitvox.benchmarks.experiments.provenance import commit, provenance
from bitvox.benchmarks.experiments.results import (
    Cell,
    Document,
    Errors,
    Notebook,
    Rate,
    Schema,
    cell_key,
)
from bitvox.benchmarks.experiments.speech import (
    AN4,
    described,
    draw_clips,
    gather,
    read_split,
    speech_folder,
    stratified,
)
from bitvox.bundling import fill_bundle
from bitvox.compile import sweep
from bitvox.compiler.frontend.audio import read_clip
from bitvox.compiler.passes.bytes import average_bits
from bitvox.compiler.passes.plan import Kernels
from bitvox.exporters.bundle import Bundle
from bitvox.exporters.runner import open_runner
from bitvox.planning import plan_for
from bitvox.progress import Progress, no_progress
from bitvox.request import CompileReport, CompileRequest, Target
from bitvox.store import default_store
from bitvox.voice import Voice, read_voice

BUDGETS = (1_200_000, 1_800_000, 3_000_000)
COMPARED_CLIPS = 50
SEED = 0

_CALIBRATION_CLIPS = 42


@dataclass(frozen=True)
class Way:
    """A way to run a bundle."""

    target: Target
    kernels: Kernels

    def __str__(self) -> str:
        return f"{self.target}, {self.kernels} kernels"

    def ask(self, request: CompileRequest) -> CompileRequest:
        """The request for this way."""
        return replace(request, target=self.target, kernels=self.kernels)


# The usual way first.
WAYS = (Way("onnx", "stock"), Way("onnx", "packed"), Way("executorch", "packed"))


class RuntimeRow(Cell):
    """One bundle.

    Attributes:
        way: Target and kernels; `command`: what compiles it, CLIPS being the calibration clips.
        words: Errors on the test clips.
        difference: Word error rate minus that of the usual way at this budget, in points, paired.
        texts: What it writes for each test clip.
    """

    way: str
    command: str
    budget: int
    bytes: int
    average_bits: float
    words: Errors
    difference: Rate
    texts: tuple[str, ...]


class Disagreement(Schema):
    """A clip that two runtimes write differently."""

    recording: str
    first: str
    second: str


class PairRow(Schema):
    """Two runtimes with one plan.

    Attributes:
        same_integers: Whether their kernels compute the same integers from the same activations.
        budget: Budget that the plan was made for; `average_bits`: its bits.
    """

    first: str
    second: str
    same_integers: bool
    budget: int
    average_bits: float
    clips: int
    disagreements: tuple[Disagreement, ...]


class RuntimesDocument(Document[RuntimeRow, PairRow]):
    """`runtimes.json`."""


@dataclass(frozen=True)
class Setting:
    """What the experiment runs on.

    Attributes:
        model: Checkpoint.
        calibration: Recordings that all bundles are calibrated with.
        test: Recordings that they are judged on; the first `compared` of a draw compare runtimes.
        budgets: Bytes; the middle one is that of the plan that all runtimes follow.
    """

    model: str
    calibration: tuple[Utterance, ...]
    test: Dataset
    budgets: tuple[int, ...] = BUDGETS
    compared: int = COMPARED_CLIPS


def runtimes(
    out: Path, setting: Setting, progress: Progress = no_progress, arguments: Sequence[str] = ()
) -> RuntimesDocument:
    """Measure every bundle that the file does not have, then compare the runtimes."""
    with tempfile.TemporaryDirectory() as scratch:
        audio = gather(setting.calibration, Path(scratch) / "clips")
        request = CompileRequest(setting.model, audio, out=Path(scratch) / "bundles", seed=SEED)
        voice = read_voice(request, default_store(), no_progress)
        data = {
            AN4: described(setting.test),
            "calibration": f"{AN4} train: {len(setting.calibration)} clips drawn by seed, a quarter held out",
        }
        found = provenance("runtimes", arguments, setting.model, voice.model.fingerprint, data)
        notebook = Notebook(out, RuntimesDocument, "runtimes", found)
        keys = {
            (way, budget): _key(setting, voice, way, budget) for way in WAYS for budget in setting.budgets
        }
        notebook.keep(keys.values())
        _fill(notebook, setting, request, keys, progress)
        pairs = tuple(_pairs(setting, request, voice, Path(scratch)))
        document = notebook.write(keys.values(), pairs)
    assert isinstance(document, RuntimesDocument)
    return document


def _key(setting: Setting, voice: Voice, way: Way, budget: int) -> str:
    clips = [utterance.path.name for utterance in (*setting.calibration, *setting.test.utterances)]
    return cell_key(
        fingerprint=voice.model.fingerprint, method="auto", way=str(way), budget=budget, clips=clips
    )


def _fill(
    notebook: Notebook[RuntimeRow, PairRow],
    setting: Setting,
    request: CompileRequest,
    keys: Mapping[tuple[Way, int], str],
    progress: Progress,
) -> None:
    """Measure the missing bundles, way by way: each traces and lowers the model once."""
    done = sum(notebook.get(key) is not None for key in keys.values())
    progress("runtimes", done, len(keys))
    for way in WAYS:
        missing = [budget for budget in setting.budgets if notebook.get(keys[way, budget]) is None]
        reports = sweep(way.ask(request), missing).all() if missing else ()
        for budget, report in zip(missing, reports, strict=True):
            usual = notebook.get(keys[WAYS[0], budget])
            notebook.add(_row(keys[way, budget], way, report, setting.test, usual))
            done += 1
            progress("runtimes", done, len(keys))


def _row(key: str, way: Way, report: CompileReport, test: Dataset, usual: RuntimeRow | None) -> RuntimeRow:
    texts = _listen(report.out, test.utterances)
    said = [utterance.text or "" for utterance in test.utterances]
    speakers, _ = clusters(test.utterances)
    words = metrics.count_words(said, texts)
    usual_words = metrics.count_words(said, usual.texts if usual else texts)
    assert report.budget is not None
    return RuntimeRow(
        key=key,
        commit=commit(),
        way=str(way),
        command=f"bitvox compile {report.plan.model} --audio CLIPS --budget {report.budget} "
        f"--target {way.target} --kernels {way.kernels} --out BUNDLE",
        budget=report.budget,
        bytes=report.bytes,
        average_bits=round(report.average_bits, 4),
        words=Errors.of(metrics.error_rate(words, speakers)),
        difference=Rate.of(metrics.rate_difference(words, usual_words, speakers)),
        texts=tuple(texts),
    )


def _pairs(setting: Setting, request: CompileRequest, voice: Voice, scratch: Path) -> Iterator[PairRow]:
    """Every two ways with the plan that is made for the usual one."""
    budget = sorted(setting.budgets)[len(setting.budgets) // 2]
    plan = plan_for(voice, replace(request, budget=budget), default_store(), no_progress)
    drawn = stratified(setting.test, setting.compared, SEED).utterances
    texts = {}
    for index, way in enumerate(WAYS):
        own = read_voice(way.ask(request), default_store(), no_progress)
        folder = scratch / f"same-plan-{index}"
        folder.mkdir()
        followed = plan.replace(target=way.target, kernels=way.kernels)
        fill_bundle(own, followed, folder, False, default_store(), no_progress)
        texts[way] = _listen(folder, drawn)
    for first, second in itertools.combinations(WAYS, 2):
        yield PairRow(
            first=str(first),
            second=str(second),
            same_integers=first.kernels == second.kernels,
            budget=budget,
            average_bits=round(average_bits(voice.model, plan), 4),
            clips=len(drawn),
            disagreements=tuple(
                Disagreement(recording=utterance.path.stem, first=ours, second=theirs)
                for utterance, ours, theirs in zip(drawn, texts[first], texts[second], strict=True)
                if ours != theirs
            ),
        )


def _listen(folder: Path, utterances: Sequence[Utterance]) -> list[str]:
    """Greedy transcripts of a bundle."""
    runner = open_runner(Bundle.open(folder))
    rate = runner.processor.sampling_rate
    return [runner.transcribe(read_clip(utterance.path, rate).samples) for utterance in utterances]


def default_setting(speech: Path, model: str, limit: int | None) -> Setting:
    """The experiment on AN4."""
    calibration = draw_clips(read_split(speech, AN4, "train"), _CALIBRATION_CLIPS, SEED)
    return Setting(model, tuple(calibration), stratified(read_split(speech, AN4, "test"), limit, SEED))


def measure(options: Options, progress: Progress) -> RuntimesDocument:
    """`bitvox reproduce runtimes`."""
    setting = default_setting(speech_folder(), options.model, options.limit)
    return runtimes(options.out, setting, progress, options.arguments)
