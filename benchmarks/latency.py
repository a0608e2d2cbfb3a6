"""Size, load, first and steady latency and memory of a bundle, measured here beside full precision.

Load, first run and memory come from fresh processes, so that nothing is warm and nothing else is counted.
Steady latency alternates between the two models in one process, so that both see the same clock, heat and
neighbours.
"""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from bitvox.benchmarks.machine import machine
from bitvox.benchmarks.probe import TOKENS_PER_SECOND, exercise, noise
from bitvox.compiler.frontend.session import Session
from bitvox.errors import InputError, RequestError
from bitvox.exporters.bundle import Bundle, folder_bytes
from bitvox.exporters.runner import open_session
from bitvox.exporters.targets import runtime
from bitvox.progress import Progress, no_progress

FloatArray = npt.NDArray[np.float32]
_T = TypeVar("_T")

FRESH_PROCESSES = 3
WARM_UP = 2
ROUNDS = 15


@dataclass(frozen=True)
class Spread:
    """Median of repeated measurements with the quartiles around it."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: npt.ArrayLike) -> Spread:
        """The spread of at least one value."""
        values = np.asarray(values)
        low, median, high = np.percentile(values, (25, 50, 75))
        return cls(float(median), float(low), float(high), values.size)


@dataclass(frozen=True)
class Measured:
    """One model.

    Attributes:
        bytes: All files of its folder.
        load: Seconds to load it in a fresh process, imports not counted.
        first: Seconds of the first run after that.
        steady: Seconds of a run once warm, on `BenchReport.seconds` of audio.
        real_time_factor: Median of `steady` per second of audio.
        peak_memory: Largest resident set while loading and running once, less that of the empty runtime, in
            bytes.
        resident_memory: Resident set after that, less that of the empty runtime, in bytes.
            Both are None where the system does not tell.
    """

    bytes: int
    load: Spread
    first: Spread
    steady: Spread
    real_time_factor: float
    peak_memory: int | None
    resident_memory: int | None


@dataclass(frozen=True)
class BenchReport:
    """A bundle and, where there is one, its full-precision export, on one machine.

    Attributes:
        bundle: Its folder.
        seconds: Length of the audio that was run; `num_threads`: threads of the runtime.
        measured: The bundle; `full_precision`: the export.
        time_ratio: Steady time of the bundle over that of full precision, round by round; above 1 it is
            slower.
        empty_runtime: Peak memory of a process that loads nothing, in bytes; it is subtracted.
        isa: Instruction set that bitvox's own kernels took, None for a bundle that needs only the runtime's.
        machine: CPU, its telling flags, system and load when the measurement began.
        versions: Of what ran.
        method: How it was measured, in words.
    """

    bundle: str
    seconds: float
    num_threads: int
    measured: Measured
    full_precision: Measured | None
    time_ratio: Spread | None
    empty_runtime: int | None
    isa: str | None
    machine: dict[str, str]
    versions: dict[str, str]
    method: str

    def to_json(self) -> str:
        """The report as one JSON document."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, indent=2)


def bench(
    bundle: Bundle,
    full_precision: Path | None = None,
    seconds: float = 3.0,
    num_threads: int = 1,
    progress: Progress = no_progress,
) -> BenchReport:
    """Measure a bundle, interleaved with the full-precision export in a folder where one is given.

    Raises InputError for a length below one frame or fewer than one thread, and when a file cannot be loaded.
    """
    if not math.isfinite(seconds):
        raise InputError(f"seconds {seconds}: give a length such as 3")
    processor, target = bundle.manifest.processor, bundle.manifest.target
    samples = round(seconds * processor.sampling_rate)
    if samples < processor.minimum_samples:
        shortest = processor.minimum_samples / processor.sampling_rate
        raise InputError(f"seconds {seconds:g}: the model needs at least {shortest:g}")
    if num_threads < 1:
        raise InputError(f"threads {num_threads}: at least 1")
    shape, tokens = processor.input_shape(samples), max(1, round(TOKENS_PER_SECOND * seconds))
    bundle.check_hashes()
    machine_here = machine()
    models = [_Model(target, bundle.folder, num_threads)]
    if full_precision is not None:
        models.append(_Model(target, full_precision, num_threads))
    count = _Counter(progress, 1 + FRESH_PROCESSES * len(models) + WARM_UP + ROUNDS)
    empty = count.after(_probe(models[0], tokens, shape, empty=True))
    # Alternating here too, so that a busy minute falls on both.
    probes = [[count.after(_probe(model, tokens, shape)) for model in models] for _ in range(FRESH_PROCESSES)]
    times = interleave([model.open() for model in models], noise(shape), tokens, lambda: count.after(None))
    measured = [
        _measured(model, [row[index] for row in probes], times[:, index], seconds, empty)
        for index, model in enumerate(models)
    ]
    packages = ("bitvox", "numpy", *runtime(target, bundle.folder).PACKAGES)
    return BenchReport(
        bundle=str(bundle.folder),
        seconds=seconds,
        num_threads=num_threads,
        measured=measured[0],
        full_precision=measured[1] if full_precision else None,
        time_ratio=Spread.of(times[:, 0] / times[:, 1]) if full_precision else None,
        empty_runtime=empty.peak,
        isa=_isa(bundle),
        machine=machine_here,
        versions={name: version(name) for name in packages},
        method=(
            f"{FRESH_PROCESSES} fresh processes for load, first run, memory (VmHWM less an empty runtime's); "
            f"{ROUNDS} rounds in one process after {WARM_UP} to warm up, models alternating; quartiles; "
            f"seeded noise as audio, {tokens} tokens of a decoder; features and search for text not counted"
        ),
    )


def interleave(
    sessions: Sequence[Session],
    features: FloatArray,
    tokens: int,
    after_round: Callable[[], None] = lambda: None,
) -> npt.NDArray[np.float64]:
    """Seconds of each run [rounds, models], the models taking turns within a round and in who goes first."""
    times = np.zeros((WARM_UP + ROUNDS, len(sessions)))
    for row in range(len(times)):
        for turn in range(len(sessions)):
            index = (row + turn) % len(sessions)
            started = time.perf_counter()
            exercise(sessions[index], features, tokens)
            times[row, index] = time.perf_counter() - started
        after_round()
    return times[WARM_UP:]


def _isa(bundle: Bundle) -> str | None:
    """The path that bitvox's kernels take on this CPU, where the bundle runs any of them."""
    if bundle.manifest.quant_plan(str(bundle.folder)).kernels != "packed":
        return None
    from bitvox.runtime_kernels import isa

    return isa()


@dataclass(frozen=True)
class _Model:
    target: str
    folder: Path
    num_threads: int

    def open(self) -> Session:
        return open_session(self.target, self.folder, self.num_threads)


@dataclass(frozen=True)
class _Probe:
    """What `benchmarks.probe` prints: seconds and bytes."""

    resident: int | None
    peak: int | None
    load: float = 0.0
    first: float = 0.0


class _Counter:
    """Tells a progress of one step after another."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0
        progress("bench", 0, total)

    def after(self, result: _T) -> _T:
        self._done += 1
        self._progress("bench", self._done, self._total)
        return result


def _probe(model: _Model, tokens: int, shape: Sequence[int], *, empty: bool = False) -> _Probe:
    folder = "-" if empty else str(model.folder.absolute())
    arguments = [model.target, folder, str(model.num_threads), str(tokens), *map(str, shape)]
    command = [sys.executable, "-m", "bitvox.benchmarks.probe", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        raise RequestError(f"{model.folder}: cannot be run in a fresh process: {last}")
    return _Probe(**json.loads(done.stdout))


def _measured(
    model: _Model, probes: list[_Probe], times: npt.NDArray[np.float64], seconds: float, empty: _Probe
) -> Measured:
    steady = Spread.of(times)
    return Measured(
        bytes=folder_bytes(model.folder),
        load=Spread.of([probe.load for probe in probes]),
        first=Spread.of([probe.first for probe in probes]),
        steady=steady,
        real_time_factor=steady.median / seconds,
        peak_memory=_less([probe.peak for probe in probes], empty.peak),
        resident_memory=_less([probe.resident for probe in probes], empty.resident),
    )


def _less(values: Sequence[int | None], empty: int | None) -> int | None:
    known = [value for value in values if value is not None]
    return int(np.median(known)) - empty if known and empty is not None else None
