"""What each effort takes on a model of full size: time, memory, and how well both are told beforehand.

    bitvox reproduce planning-time

wav2vec2-base's structure with random weights and 32 recordings of 10 seconds, which is what `bitvox compile`
calibrates with at most, from the start of the process to a bundle that was run. Recordings are the synthetic
sample voices, one after the other, cut into pieces.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import soundfile
from transformers import Wav2Vec2Config

from bitvox.benchmarks.experiments.checkpoint import write_random_checkpoint
from bitvox.benchmarks.experiments.experiment import Options
from bitvox.benchmarks.experiments.fresh_process import compile_afresh
from bitvox.benchmarks.experiments.provenance import commit, provenance
from bitvox.benchmarks.experiments.results import Cell, Document, Notebook, Schema, cell_key
from bitvox.compiler.frontend.loading import load_model
from bitvox.progress import Progress, no_progress
from bitvox.request import Effort

GOALS: Mapping[Effort, float] = {"quick": 180.0, "normal": 1200.0}
"""Seconds on two cores."""

MEMORY_GOAL = 6 * 10**9

BUDGET, CLIPS, SECONDS = "45MB", 32, 10.0

# A third more than what calibrates: a quarter is kept to judge with.
_RECORDINGS = 42


class PlanningRow(Cell):
    """One effort.

    Attributes:
        command: What the fresh process ran; CHECKPOINT and VOICE stand for temporary folders.
        told: What it said beforehand.
        seconds: By the clock; `cpu_seconds`: of computing, on all cores.
        peak_memory: Largest resident set in bytes; None where it is not told.
        load_average: Of the machine at the end: above its cores, others were computing too.
    """

    effort: Effort
    command: str
    parameters: int
    told: str
    seconds: float
    cpu_seconds: float
    peak_memory: int | None
    bytes: int
    load_average: str


class PlanningDocument(Document[PlanningRow, Schema]):
    """`planning_time.json`."""


def planning_time(
    out: Path,
    efforts: Sequence[Effort] = ("quick", "normal"),
    progress: Progress = no_progress,
    arguments: Sequence[str] = (),
    config: Wav2Vec2Config | None = None,
    seconds: float = SECONDS,
    budget: str = BUDGET,
) -> PlanningDocument:
    """Measure every effort that the file lacks."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        parameters = write_random_checkpoint(folder / "checkpoint", config)
        fingerprint = load_model(folder / "checkpoint").fingerprint
        write_pieces(folder / "voice", seconds)
        name = f"Wav2Vec2ForCTC with {parameters} random weights"
        data = {"voice": f"{_RECORDINGS} pieces of {seconds:g} s of the synthetic sample voices"}
        found = provenance("planning-time", arguments, name, fingerprint, data)
        notebook = Notebook(out, PlanningDocument, "planning_time", found)
        keys = {
            effort: cell_key(fingerprint=fingerprint, effort=effort, seconds=seconds, budget=budget)
            for effort in efforts
        }
        notebook.keep(list(keys.values()))
        for number, (effort, key) in enumerate(keys.items()):
            progress("planning time", number, len(keys))
            if notebook.get(key) is None:
                notebook.add(_row(key, folder, effort, parameters, budget))
        progress("planning time", len(keys), len(keys))
        document = notebook.write(list(keys.values()))
    assert isinstance(document, PlanningDocument)
    return document


def _row(key: str, folder: Path, effort: Effort, parameters: int, budget: str) -> PlanningRow:
    bundle = folder / effort
    places = {folder / "checkpoint": "CHECKPOINT", folder / "voice": "VOICE", bundle: "BUNDLE"}
    command = ["compile", str(folder / "checkpoint"), "--audio", str(folder / "voice"), "--budget", budget]
    command += ["--effort", effort, "--activations", "dynamic", "--out", str(bundle), "--json"]
    compiled = compile_afresh(command)
    said = " ".join(["bitvox", *command])
    for path, word in places.items():
        said = said.replace(str(path), word)
    (told,) = [line for line in compiled.told if re.match("bitvox: effort ", line)]
    return PlanningRow(
        key=key,
        commit=commit(),
        effort=effort,
        command=said,
        parameters=parameters,
        told=told.removeprefix("bitvox: "),
        seconds=compiled.seconds,
        cpu_seconds=compiled.cpu_seconds,
        peak_memory=compiled.peak_memory,
        bytes=compiled.report["bytes"],
        load_average=f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
    )


def write_pieces(folder: Path, seconds: float) -> None:
    """Recordings of that length, cut from the sample voices one after the other and over again."""
    folder.mkdir()
    voices = files("bitvox") / "assets" / "voices"
    paths = sorted(path for path in Path(str(voices)).rglob("*.ogg"))
    samples, rates = zip(*(soundfile.read(path, dtype="float32") for path in paths), strict=True)
    rate = rates[0]
    whole, size = np.concatenate(samples), round(seconds * rate)
    for number in range(_RECORDINGS):
        start = number * size % (len(whole) - size)
        soundfile.write(folder / f"{number:02d}.wav", whole[start : start + size], rate)


def measure(options: Options, progress: Progress) -> PlanningDocument:
    """`bitvox reproduce planning-time`."""
    return planning_time(options.out, progress=progress, arguments=options.arguments)
