"""Models of full size, their weights random, compiled to about 4 bits a weight and run.

    bitvox reproduce full-size

Random weights show size, time and memory, which do not depend on what a model has learnt; they say nothing
about its words.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from bitvox.benchmarks.experiments.checkpoint import conformer_large, write_random_checkpoint
from bitvox.benchmarks.experiments.experiment import Options
from bitvox.benchmarks.experiments.fresh_process import compile_afresh
from bitvox.benchmarks.experiments.provenance import commit, provenance
from bitvox.benchmarks.experiments.results import Cell, Document, Notebook, Schema, cell_key
from bitvox.benchmarks.experiments.whisper_checkpoint import write_random_whisper
from bitvox.benchmarks.latency import Measured, Spread, bench
from bitvox.compiler.frontend.loading import load_model
from bitvox.exporters.bundle import Bundle
from bitvox.exporters.onnx.exporter import export_full_precision
from bitvox.progress import Progress, no_progress
from bitvox.sizes import parse_size

MEMORY_LIMIT, MINUTES_LIMIT = 12 * 10**9, 15
RATIO_GOAL = 0.65

_SECONDS = 3.0
_VOICE, _CLIPS = "nora", 8


@dataclass(frozen=True)
class Structure:
    """A model: what writes it into a folder and returns its parameters, and the budget that it gets."""

    write: Callable[[Path], int]
    budget: str


STRUCTURES: Mapping[str, Structure] = {
    "wav2vec2-base": Structure(write_random_checkpoint, "45MB"),
    "whisper-tiny": Structure(lambda folder: write_random_whisper(folder, "tiny"), "21MB"),
    "whisper-base": Structure(lambda folder: write_random_whisper(folder, "base"), "40MB"),
    "whisper-small": Structure(lambda folder: write_random_whisper(folder, "small"), "130MB"),
    "wav2vec2-conformer-large": Structure(
        lambda folder: write_random_checkpoint(folder, conformer_large()), "320MB"
    ),
}


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
        structure: Its name in the table; `fingerprint`: SHA-256 of the checkpoint.
        compile_command: What the fresh process ran; CHECKPOINT and VOICE stand for temporary folders.
        compile_seconds: Wall time of that process; `compile_cpu_seconds`: time that its threads computed,
            which others on the machine lengthen little.
        compile_peak_memory: Largest resident set of that process, in bytes; None where it is not told.
        kernels: Operator of the runtime -> sites that reached it.
        ratio: Time of a steady run over that of full precision, round by round.
        load_average: Of the machine when the run was measured: above its cores, others were computing too.
    """

    structure: str
    fingerprint: str
    compile_command: str
    parameters: int
    clips: int
    budget: int
    bytes: int
    average_bits: float
    parity: float
    compile_seconds: float
    compile_cpu_seconds: float
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


def full_size(
    out: Path,
    structures: Mapping[str, Structure],
    seconds: float,
    progress: Progress = no_progress,
    arguments: Sequence[str] = (),
) -> FullSizeDocument:
    """Measure those structures that the file lacks, and write the file."""
    data = {"voice": f"{_CLIPS} clips of the synthetic sample voice {_VOICE}"}
    found = provenance("full-size", arguments, "random weights", "", data)
    notebook = Notebook(out, FullSizeDocument, "full_size", found)
    keys = {
        name: cell_key(structure=name, budget=structure.budget, seconds=seconds, clips=_CLIPS)
        for name, structure in structures.items()
    }
    notebook.keep(keys.values())
    for name, key in keys.items():
        if notebook.get(key) is None:
            notebook.add(_measure(name, structures[name], key, seconds, progress))
    document = notebook.write(keys.values())
    assert isinstance(document, FullSizeDocument)
    return document


def _measure(name: str, structure: Structure, key: str, seconds: float, progress: Progress) -> FullSizeRow:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        progress(f"write {name}", 0, 1)
        parameters = structure.write(folder / "checkpoint")
        progress(f"write {name}", 1, 1)
        voice = _sample_voice(folder / "voice")
        command = ["compile", str(folder / "checkpoint"), "--audio", str(voice)]
        command += [
            "--budget",
            structure.budget,
            "--method",
            "myqasr",
            "--target",
            "onnx",
            "--out",
            str(folder / "bundle"),
            "--json",
        ]
        progress(f"compile {name} in a fresh process", 0, 1)
        compiled = compile_afresh(command)  # before this process holds a model
        progress(f"compile {name} in a fresh process", 1, 1)
        model = load_model(folder / "checkpoint")
        fingerprint = model.fingerprint
        exported = export_full_precision(model, folder / "full").parent
        del model
        measured = bench(Bundle.open(folder / "bundle"), exported, seconds, 1, progress)
        said = " ".join(["bitvox", *command])
        for path, word in (
            (folder / "checkpoint", "CHECKPOINT"),
            (voice, "VOICE"),
            (folder / "bundle", "BUNDLE"),
        ):
            said = said.replace(str(path), word)
    assert measured.full_precision is not None and measured.time_ratio is not None
    return FullSizeRow(
        key=key,
        commit=commit(),
        structure=name,
        fingerprint=fingerprint,
        compile_command=said,
        parameters=parameters,
        clips=_CLIPS,
        budget=parse_size(structure.budget),
        bytes=compiled.report["bytes"],
        average_bits=compiled.report["average_bits"],
        parity=compiled.report["parity"],
        compile_seconds=compiled.seconds,
        compile_cpu_seconds=compiled.cpu_seconds,
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


def measure(options: Options, progress: Progress) -> FullSizeDocument:
    """`bitvox reproduce full-size`."""
    return full_size(options.out, STRUCTURES, _SECONDS, progress, options.arguments)
