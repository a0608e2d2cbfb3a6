"""One cell of the experiment on real speech: a configuration becomes a bundle, the bundle becomes texts.

Cells run in worker processes of one thread each. A worker loads the model, the calibration clips and the
test clips once.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from bitvox.benchmarks.experiments.unit_calibration import calibrate_by_unit
from bitvox.bundling import fill_bundle
from bitvox.compiler.frontend.audio import read_clip
from bitvox.compiler.frontend.model import FloatArray
from bitvox.compiler.passes.base import Sequential
from bitvox.compiler.passes.bytes import average_bits, paper_bytes
from bitvox.compiler.passes.conv_ranges import FitConvRangesPass
from bitvox.compiler.passes.plan import QuantPlan
from bitvox.errors import RequestError
from bitvox.exporters.bundle import Bundle, folder_bytes, write_atomically
from bitvox.exporters.runner import open_session
from bitvox.planning import allocated_plan, byte_costs, plan_for
from bitvox.progress import no_progress
from bitvox.request import CompileRequest
from bitvox.store import FileStore, default_store
from bitvox.voice import Voice, read_voice

MIB = 1 << 20


@dataclass(frozen=True)
class Workplace:
    """What every cell of an experiment shares.

    Attributes:
        model: Checkpoint; `audio`: folder of the calibration clips.
        recordings: Test set -> paths of its recordings.
    """

    model: str
    audio: Path
    recordings: dict[str, tuple[Path, ...]]


@dataclass(frozen=True)
class Outcome:
    """What a cell found; `unreachable` says why there is no bundle.

    Attributes:
        bytes: Of the bundle, by os.stat; `paper_mib`: by the accounting of the paper's figure.
        average_bits: Per quantised weight.
        widths: Width -> sites that have it, `float` for those at full precision.
        texts: Test set -> what was written for each recording.
        compile_seconds, evaluate_seconds: Wall time in a worker of one thread.
    """

    bytes: int = 0
    paper_mib: float = 0.0
    average_bits: float = 0.0
    widths: tuple[tuple[str, int], ...] = ()
    texts: tuple[tuple[str, tuple[str, ...]], ...] = ()
    compile_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    unreachable: str = ""


class Worker:
    """A process's model, voice and test clips."""

    def __init__(self, place: Workplace, store: FileStore) -> None:
        torch.set_num_threads(1)
        self.store = store
        self.voice: Voice = read_voice(CompileRequest(place.model, audio=place.audio), store, no_progress)
        rate = self.voice.model.processor.sampling_rate
        self.clips: dict[str, list[FloatArray]] = {
            name: [read_clip(path, rate).samples for path in paths]
            for name, paths in place.recordings.items()
        }

    def full_precision(self) -> Outcome:
        """The float32 export, run as a bundle is."""
        with tempfile.TemporaryDirectory() as scratch:
            started = time.monotonic()
            folder = self.voice.exporter.export_full_precision(
                self.voice.model, Path(scratch) / "full"
            ).parent
            compiled = time.monotonic()
            texts = self._listen(folder, "onnx")
            parameters = sum(parameter.numel() for parameter in self.voice.model.module.parameters())
            return Outcome(
                bytes=folder_bytes(folder),
                paper_mib=4 * parameters / MIB,
                average_bits=32.0,
                widths=(("float", len(self.voice.model.sites)),),
                texts=texts,
                compile_seconds=compiled - started,
                evaluate_seconds=time.monotonic() - compiled,
            )

    def compiled(self, request: CompileRequest) -> Outcome:
        """The bundle that `bitvox compile` writes for this request, and what it hears."""
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "bundle"
            try:
                plan = self._plan(request)
                write_atomically(folder, lambda path: self._fill(plan, path))
            except RequestError as error:
                return Outcome(unreachable=str(error))
            compiled = time.monotonic()
            texts = self._listen(folder, plan.target)
            return Outcome(
                bytes=Bundle.open(folder).bytes,
                paper_mib=paper_bytes(self.voice.model, plan) / MIB,
                average_bits=average_bits(self.voice.model, plan),
                widths=tuple(sorted(Counter(str(entry.bits or "float") for entry in plan.sites).items())),
                texts=texts,
                compile_seconds=compiled - started,
                evaluate_seconds=time.monotonic() - compiled,
            )

    def _fill(self, plan: QuantPlan, folder: Path) -> None:
        fill_bundle(self.voice, plan, folder, allow_float=False, store=self.store, progress=no_progress)

    def _plan(self, request: CompileRequest) -> QuantPlan:
        if request.calibration == "min-max":
            return plan_for(self.voice, request, self.store, no_progress)
        plan = allocated_plan(self.voice, request, self.store, no_progress)
        costs = byte_costs(self.voice, plan.storage)
        context = self.voice.context(costs)
        plan = calibrate_by_unit(context, plan, request.calibration, request.seed, self.store)
        if plan.tier == "default":
            plan = Sequential((FitConvRangesPass(),)).run(context, plan, self.store)
        return plan

    def _listen(self, folder: Path, target: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
        session, processor = open_session(target, folder, num_threads=1), self.voice.model.processor
        return tuple(
            (name, tuple(processor.transcribe(session, clip) for clip in clips))
            for name, clips in self.clips.items()
        )


_worker: Worker | None = None


def open_worker(place: Workplace) -> None:
    """Prepare this process for cells."""
    global _worker
    _worker = Worker(place, default_store())


def run_cell(request: CompileRequest | None) -> Outcome:
    """Run a cell in a prepared process; without a request, full precision."""
    assert _worker is not None
    return _worker.full_precision() if request is None else _worker.compiled(request)
