"""Full precision, uniform widths and myQASR on real speech, at equal bytes.

    bitvox reproduce real-speech

Each uniform bundle sets the budget of all the others in its row of bytes. All are calibrated on the same
clips of training speakers; a bundle is compiled once and judged on both test sets.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from bitvox.benchmarks.dataset import Dataset, Utterance
from bitvox.benchmarks.experiments.cells import Outcome, Workplace, open_worker, run_cell
from bitvox.benchmarks.experiments.experiment import Options
from bitvox.benchmarks.experiments.ladder import Ladder, measure_ladder
from bitvox.benchmarks.experiments.provenance import commit, provenance
from bitvox.benchmarks.experiments.real_rows import SpeechDocument, SpeechRow, score
from bitvox.benchmarks.experiments.results import Notebook, Schema, cell_key
from bitvox.benchmarks.experiments.speech import (
    AN4,
    SPEECHOCEAN,
    described,
    draw_clips,
    gather,
    read_split,
    speech_folder,
    stratified,
)
from bitvox.planning import plan_for
from bitvox.progress import Progress, no_progress
from bitvox.request import Calibration, CompileRequest, Order, Tier
from bitvox.store import default_store
from bitvox.voice import read_voice

WIDTHS = (8, 6, 5, 4, 3)
# At the bytes of a uniform bundle myQASR's walk ends next to that bundle; half-way its orders differ most.
HALF_WAY = (5.5, 4.5, 3.5)
ORDERS: tuple[Order, ...] = ("ascending", "descending")
WORKERS = 2
SEED = 0

# Four clips of each of the 105 speakers: all 2100 would take over an hour on two cores.
_SPEECHOCEAN_CLIPS = 420
# A quarter is kept to judge agreement with; 32 calibrate.
_CALIBRATION_CLIPS = 42


@dataclass(frozen=True)
class Setting:
    """What the experiment runs on.

    Attributes:
        model: Checkpoint.
        calibration: Recordings that all bundles are calibrated with.
        tests: Test set -> recordings.
        widths: Uniform widths whose bytes are the budgets; `half_way`: averages between two of them.
        workers: Processes.
    """

    model: str
    calibration: tuple[Utterance, ...]
    tests: Mapping[str, Dataset]
    widths: tuple[int, ...] = WIDTHS
    half_way: tuple[float, ...] = HALF_WAY
    workers: int = WORKERS


@dataclass(frozen=True)
class _Planned:
    """A cell before it is run: its key, its request (None: full precision), its budget's anchor."""

    key: str
    request: CompileRequest | None
    anchor: float | None


def real_speech(
    out: Path, setting: Setting, progress: Progress = no_progress, arguments: Sequence[str] = ()
) -> SpeechDocument:
    """Measure every cell that the file does not have."""
    with tempfile.TemporaryDirectory() as scratch:
        audio = gather(setting.calibration, Path(scratch) / "clips")
        base = CompileRequest(model=setting.model, audio=audio, method="myqasr", seed=SEED)
        fingerprint, ladder = _ladder(base)
        data = {name: described(dataset) for name, dataset in setting.tests.items()}
        data["calibration"] = (
            f"{AN4} train: {len(setting.calibration)} clips drawn by seed, a quarter held out"
        )
        found = provenance("real-speech", arguments, setting.model, fingerprint, data)
        notebook = Notebook(out, SpeechDocument, "real_speech", found)
        place = Workplace(setting.model, audio, {name: _paths(test) for name, test in setting.tests.items()})
        with _workers(setting.workers, place) as executor:
            experiment = _Experiment(setting, fingerprint, notebook, executor, progress)
            document = experiment.run(base, ladder)
    return document


class _Experiment:
    """Cells in two rounds: full precision and the uniform widths, then everything that needs their bytes."""

    def __init__(
        self,
        setting: Setting,
        fingerprint: str,
        notebook: Notebook[SpeechRow, Schema],
        executor: Executor,
        progress: Progress,
    ) -> None:
        self.setting = setting
        self.fingerprint = fingerprint
        self.notebook = notebook
        self.executor = executor
        self.progress = progress
        self.done = 0
        self.total = (
            1
            + len(setting.widths)
            + len(ORDERS)
            * len(get_args(Tier))
            * (len(get_args(Calibration)) * len(setting.widths) + len(setting.half_way))
        )

    def run(self, base: CompileRequest, ladder: Ladder) -> SpeechDocument:
        """All cells; the file is written after each."""
        full = self._plan(None, None)
        uniform = [
            self._plan(replace(base, method="uniform", budget=ladder.only(width)), width)
            for width in self.setting.widths
        ]
        self._measure([full])
        self._measure(uniform)
        sizes = {
            float(width): self._row(cell).bytes
            for width, cell in zip(self.setting.widths, uniform, strict=True)
        }
        others = list(self._others(base, sizes))
        self._measure(others)
        cells = [full, *uniform, *others]
        self.notebook.keep(cell.key for cell in cells)
        document = self.notebook.write(cell.key for cell in cells)
        assert isinstance(document, SpeechDocument)
        return document

    def _others(self, base: CompileRequest, sizes: Mapping[float, int]) -> Iterator[_Planned]:
        """Cells of one tier and calibration follow each other: they share what calibration finds."""
        half_way = {
            average: (sizes[average - 0.5] + sizes[average + 0.5]) // 2 for average in self.setting.half_way
        }
        for tier in get_args(Tier):
            for calibration in get_args(Calibration):
                budgets: dict[float, int] = {**sizes, **half_way} if calibration == "min-max" else dict(sizes)
                for order in ORDERS:
                    for anchor, budget in budgets.items():
                        request = replace(
                            base, order=order, tier=tier, calibration=calibration, budget=budget
                        )
                        yield self._plan(request, anchor)

    def _plan(self, request: CompileRequest | None, anchor: float | None) -> _Planned:
        clips = [(name, path.name) for name, test in self.setting.tests.items() for path in _paths(test)]
        calibration = [utterance.path.name for utterance in self.setting.calibration]
        said = request and replace(request, audio=None)
        key = cell_key(fingerprint=self.fingerprint, request=said, clips=clips, calibration=calibration)
        return _Planned(key, request, anchor)

    def _measure(self, cells: Sequence[_Planned]) -> None:
        missing = [cell for cell in cells if not self._is_finished(cell)]
        self._tell(len(cells) - len(missing))
        futures = {self.executor.submit(run_cell, cell.request): cell for cell in missing}
        try:
            for future in as_completed(futures):
                self.notebook.add(self._finished(futures[future], future.result()))
                self._tell(1)
        except BaseException:
            self.executor.shutdown(wait=False, cancel_futures=True)
            raise

    def _is_finished(self, cell: _Planned) -> bool:
        """A failure is tried again: it takes little time, and its cause may be gone."""
        row = self.notebook.get(cell.key)
        return row is not None and row.unreachable is None

    def _tell(self, finished: int) -> None:
        self.done += finished
        self.progress("real speech", self.done, self.total)

    def _row(self, cell: _Planned) -> SpeechRow:
        row = self.notebook.get(cell.key)
        assert row is not None
        return row

    def _finished(self, cell: _Planned, outcome: Outcome) -> SpeechRow:
        texts = dict(outcome.texts)
        return SpeechRow(
            key=cell.key,
            commit=commit(),
            **_asked(cell),
            unreachable=outcome.unreachable or None,
            bytes=outcome.bytes,
            paper_mib=round(outcome.paper_mib, 4),
            average_bits=round(outcome.average_bits, 4),
            widths=dict(outcome.widths),
            scores=score(outcome, self.setting.tests, self._full_precision_texts(texts)),
            texts=texts if cell.request is None else {},
            compile_seconds=round(outcome.compile_seconds, 2),
            evaluate_seconds=round(outcome.evaluate_seconds, 2),
        )

    def _full_precision_texts(self, texts: dict[str, tuple[str, ...]]) -> Mapping[str, Sequence[str]]:
        row = self.notebook.get(self._plan(None, None).key)
        return texts if row is None else row.texts


def _asked(cell: _Planned) -> dict[str, Any]:
    """What a row says of its request."""
    request = cell.request
    if request is None:
        return {"method": "full precision"}
    order = request.order if request.method == "myqasr" else None
    words = ["bitvox", "compile", str(request.model), "--audio", "CLIPS", "--budget", str(request.budget)]
    words += ["--method", request.method, *(["--order", order] if order else [])]
    words += ["--calibration", request.calibration, "--tier", request.tier, "--out", "BUNDLE"]
    return {
        "method": request.method,
        "order": order,
        "calibration": request.calibration,
        "tier": request.tier,
        "anchor": cell.anchor,
        "command": " ".join(words),
        "budget": request.budget,
    }


def _ladder(base: CompileRequest) -> tuple[str, Ladder]:
    """Fingerprint of the model, and what its bundles take."""
    store = default_store()
    voice = read_voice(base, store, no_progress)
    widest = plan_for(voice, replace(base, budget=1 << 40), store, no_progress)
    return voice.model.fingerprint, measure_ladder(voice, widest)


def _paths(dataset: Dataset) -> tuple[Path, ...]:
    return tuple(utterance.path for utterance in dataset.utterances)


@contextlib.contextmanager
def _workers(count: int, place: Workplace) -> Iterator[Executor]:
    # Spawned: a forked copy of a process that has run torch may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, open_worker, (place,)) as executor:
        yield executor


def default_setting(speech: Path, model: str, limit: int | None) -> Setting:
    """The experiment on AN4 and speechocean762."""
    sizes = {AN4: limit, SPEECHOCEAN: min(limit or _SPEECHOCEAN_CLIPS, _SPEECHOCEAN_CLIPS)}
    tests = {name: stratified(read_split(speech, name, "test"), size, SEED) for name, size in sizes.items()}
    calibration = draw_clips(read_split(speech, AN4, "train"), _CALIBRATION_CLIPS, SEED)
    return Setting(model, tuple(calibration), tests)


def measure(options: Options, progress: Progress) -> SpeechDocument:
    """`bitvox reproduce real-speech`; a limit is one on the recordings of each test set."""
    setting = default_setting(speech_folder(), options.model, options.limit)
    return real_speech(options.out, setting, progress, options.arguments)
