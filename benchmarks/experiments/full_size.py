"""A model of wav2vec2-base's size (94.4 million parameters, random weights) compiled to 45 MB and run.

    bitvox reproduce full-size

Random weights show size, time and memory, which do not depend on what a model has learnt; they say nothing
about its words.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from transformers import Wav2Vec2Config

from bitvox.benchmarks.experiments.checkpoint import write_random_checkpoint
from bitvox.benchmarks.experiments.experiment import Options
from bitvox.benchmarks.experiments.provenance import commit, provenance
from bitvox.benchmarks.experiments.results import Cell, Document, Notebook, Schema, cell_key
from bitvox.benchmarks.latency import BenchReport, Measured, Spread, bench
from bitvox.compiler.frontend.loading import load_model
from bitvox.compiler.frontend.model import SpeechModel
from bitvox.errors import RequestError
from bitvox.exporters.bundle import Bundle
from bitvox.exporters.onnx.exporter import export_full_precision
from bitvox.memory import memory
from bitvox.progress import Progress, no_progress
from bitvox.sizes import parse_size

_BUDGET, _SECONDS = "45MB", 3.0
MEMORY_LIMIT = 12 * 10**9
RATIO_GOAL = 0.65

_VOICE, _CLIPS = "nora", 8
_POLL = 0.1


class Run(Schema):
    """One model at run time: seconds, and bytes above an empty runtime's."""

    bytes: int
    load: Spread
    first: Spread
    steady: Spread
    resident_memory: int | None
    peak_memory: int | None

    @classmethod
    def of(cls, measured: Measured) -> Run:
        """The same numbers for the file."""
        return cls(
            bytes=measured.bytes,
            load=measured.load,
            first=measured.first,
            steady=measured.steady,
            resident_memory=measured.resident_memory,
            peak_memory=measured.peak_memory,
        )


class FullSizeRow(Cell):
    """One checkpoint, compiled in a fresh process and run beside full precision.

    Attributes:
        compile_command: What the fresh process ran; CHECKPOINT and VOICE stand for temporary folders.
        compile_peak_memory: Largest resident set of that process, in bytes; None where it is not told.
        kernels: Operator of the runtime -> sites that reached it.
        ratio: Time of a steady run over that of full precision, round by round.
        load_average: Of the machine when the run was measured: above its cores, others were computing too.
    """

    compile_command: str
    parameters: int
    clips: int
    budget: int
    bytes: int
    average_bits: float
    parity: float
    compile_seconds: float
    compile_peak_memory: int | None
    kernels: dict[str, int]
    audio_seconds: float
    threads: int
    bundle: Run
    full_precision: Run
    ratio: Spread
    load_average: str
    method: str


class FullSizeDocument(Document[FullSizeRow, Schema]):
    """`full_size.json`."""


@dataclass(frozen=True)
class _Compiled:
    report: dict[str, Any]
    seconds: float
    peak_memory: int | None


def full_size(
    out: Path,
    budget: str,
    seconds: float,
    progress: Progress = no_progress,
    arguments: Sequence[str] = (),
    config: Wav2Vec2Config | None = None,
) -> FullSizeDocument:
    """Measure the one cell, unless the file has it, and write the file."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        progress("checkpoint", 0, 1)
        parameters = write_random_checkpoint(folder / "checkpoint", config)
        model = load_model(folder / "checkpoint")
        progress("checkpoint", 1, 1)
        name = f"Wav2Vec2ForCTC with {parameters} random weights"
        data = {"voice": f"{_CLIPS} clips of the synthetic sample voice {_VOICE}"}
        found = provenance("full-size", arguments, name, model.fingerprint, data)
        notebook = Notebook(out, FullSizeDocument, "full_size", found)
        key = cell_key(fingerprint=model.fingerprint, budget=budget, seconds=seconds, clips=_CLIPS)
        notebook.keep([key])
        if notebook.get(key) is None:
            notebook.add(_measure(folder, model, parameters, key, budget, seconds, progress))
        document = notebook.write([key])
    assert isinstance(document, FullSizeDocument)
    return document


def _measure(
    folder: Path,
    model: SpeechModel,
    parameters: int,
    key: str,
    budget: str,
    seconds: float,
    progress: Progress,
) -> FullSizeRow:
    voice = _sample_voice(folder / "voice")
    command = ["compile", str(folder / "checkpoint"), "--audio", str(voice), "--budget", budget]
    command += ["--target", "onnx", "--out", str(folder / "bundle"), "--json"]
    progress("compile in a fresh process", 0, 1)
    compiled = _compile(command)
    progress("compile in a fresh process", 1, 1)
    exported = export_full_precision(model, folder / "full").parent
    measured = bench(Bundle.open(folder / "bundle"), exported, seconds, 1, progress)
    said = " ".join(["bitvox", *command])
    for path, name in (
        (folder / "checkpoint", "CHECKPOINT"),
        (voice, "VOICE"),
        (folder / "bundle", "BUNDLE"),
    ):
        said = said.replace(str(path), name)
    return _row(key, said, parameters, parse_size(budget), compiled, measured)


def _row(
    key: str, command: str, parameters: int, budget: int, compiled: _Compiled, measured: BenchReport
) -> FullSizeRow:
    assert measured.full_precision is not None and measured.time_ratio is not None
    return FullSizeRow(
        key=key,
        commit=commit(),
        compile_command=command,
        parameters=parameters,
        clips=_CLIPS,
        budget=budget,
        bytes=compiled.report["bytes"],
        average_bits=compiled.report["average_bits"],
        parity=compiled.report["parity"],
        compile_seconds=compiled.seconds,
        compile_peak_memory=compiled.peak_memory,
        kernels=dict(Counter(compiled.report["kernels"].values())),
        audio_seconds=measured.seconds,
        threads=measured.num_threads,
        bundle=Run.of(measured.measured),
        full_precision=Run.of(measured.full_precision),
        ratio=measured.time_ratio,
        load_average=measured.machine["load"],
        method=measured.method,
    )


def _sample_voice(folder: Path) -> Path:
    folder.mkdir()
    recordings = files("bitvox") / "assets" / "voices" / _VOICE
    for number in range(1, _CLIPS + 1):
        name = f"{_VOICE}-{number:02d}.ogg"
        (folder / name).write_bytes((recordings / name).read_bytes())
    return folder


def _compile(command: list[str]) -> _Compiled:
    """Run the command line in a fresh process with nothing cached, and watch its memory."""
    words = [sys.executable, "-c", "from bitvox.cli import main; main()", *command]
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryFile("w+") as out:
        started = time.monotonic()
        process = subprocess.Popen(words, stdout=out, env=_environment(cache))
        peak = None
        while process.poll() is None:
            peak = max(filter(None, (peak, memory("VmHWM", process.pid))), default=None)
            time.sleep(_POLL)
        seconds = time.monotonic() - started
        if process.returncode:
            raise RequestError(f"bitvox compile: exit code {process.returncode} (its message is above)")
        out.seek(0)
        return _Compiled(json.load(out), seconds, peak)


def _environment(cache: str) -> dict[str, str]:
    return {**os.environ, "BITVOX_CACHE": cache}


def measure(options: Options, progress: Progress) -> FullSizeDocument:
    """`bitvox reproduce full-size`."""
    return full_size(options.out, _BUDGET, _SECONDS, progress, options.arguments)
