"""One step of Whisper's decoder, one token of one hypothesis, in the forms that a user could pick.

    bitvox reproduce decoder-step

Random weights of full size: time and bytes do not depend on what a model has learnt.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bitvox.benchmarks.experiments.experiment import Options
from bitvox.benchmarks.experiments.provenance import commit, provenance
from bitvox.benchmarks.experiments.results import Cell, Document, Notebook, Schema, cell_key
from bitvox.benchmarks.experiments.whisper_checkpoint import Size, write_random_whisper
from bitvox.benchmarks.latency import Spread
from bitvox.benchmarks.machine import machine
from bitvox.benchmarks.probe import noise
from bitvox.compiler.frontend.graph_decoder import GraphDecoder
from bitvox.compiler.frontend.loading import load_model
from bitvox.compiler.frontend.model import SpeechModel
from bitvox.compiler.lowering.packed import PackedModel, full_precision, lower
from bitvox.compiler.passes.plan import Kernels, Storage
from bitvox.compiler.passes.start import start_plan
from bitvox.exporters.onnx.build import write_model
from bitvox.exporters.onnx.costs import OnnxCosts
from bitvox.exporters.onnx.session import open_session
from bitvox.exporters.onnx.skeleton import build_skeleton
from bitvox.exporters.onnx.standard import settle
from bitvox.progress import Progress

SIZES: tuple[Size, ...] = ("tiny", "base", "small")
FP32_GOAL, PEER_GOAL = 2.0, 1.3

_PAST, _WARM_UP, _ROUNDS = 24, 3, 21


@dataclass(frozen=True)
class _Form:
    """All sites at one width; no bits: float32."""

    name: str
    bits: int | None = None
    kernels: Kernels = "stock"
    storage: Storage = "packed"


_FLOAT = _Form("ORT float32")
_PEERS = (_Form("ORT int8, dynamic", 8), _Form("ORT int4, MatMulNBits", 4, storage="standard"))
_OURS = tuple(_Form(f"packed, {bits} bits", bits, "packed") for bits in (2, 3, 4, 6, 8))


class FormRow(Schema):
    """One form: bytes of its files, seconds of a step, and float32's time over its, round by round."""

    name: str
    bytes: int
    step: Spread
    speedup: Spread


class StepRow(Cell):
    """One size of Whisper, all forms taking turns in one process.

    Attributes:
        past: Tokens that the step's cache holds.
        over_peers: Time of the faster peer over that of 4 packed bits, round by round.
        load_average: Of the machine when it was measured.
    """

    size: str
    parameters: int
    past: int
    threads: int
    forms: list[FormRow]
    over_peers: Spread
    load_average: str


class StepDocument(Document[StepRow, Schema]):
    """`decoder_step.json`."""


def decoder_step(
    out: Path, sizes: Sequence[Size], progress: Progress, arguments: Sequence[str] = ()
) -> StepDocument:
    """Measure the sizes that the file lacks, and write it."""
    found = provenance("decoder-step", arguments, "Whisper with random weights", "", {})
    notebook = Notebook(out, StepDocument, "decoder_step", found)
    keys = {size: cell_key(size=size, past=_PAST, rounds=_ROUNDS) for size in sizes}
    notebook.keep(list(keys.values()))
    for size, key in keys.items():
        if notebook.get(key) is None:
            notebook.add(_measure(size, key, progress))
    document = notebook.write(list(keys.values()))
    assert isinstance(document, StepDocument)
    return document


def _measure(size: Size, key: str, progress: Progress) -> StepRow:
    forms = (_FLOAT, *_PEERS, *_OURS)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        parameters = write_random_whisper(folder / "checkpoint", size)
        model = load_model(folder / "checkpoint")
        skeleton = build_skeleton(model)
        written = []
        for number, form in enumerate(forms):
            progress(f"write whisper-{size}", number, len(forms))
            written.append(_write(form, model, skeleton, folder / str(number)))
        shape = model.processor.input_shape(model.processor.minimum_samples)
        load = machine()["load"]
        times = _interleave([folder / str(number) for number in range(len(forms))], shape)
    ours = forms.index(next(form for form in _OURS if form.bits == 4))
    peers = times[:, [forms.index(form) for form in _PEERS]]
    fastest = peers[:, np.median(peers, axis=0).argmin()]
    rows = [
        FormRow(
            name=form.name,
            bytes=written[number],
            step=Spread.of(times[:, number]),
            speedup=Spread.of(times[:, 0] / times[:, number]),
        )
        for number, form in enumerate(forms)
    ]
    return StepRow(
        key=key,
        commit=commit(),
        size=size,
        parameters=parameters,
        past=_PAST,
        threads=1,
        forms=rows,
        over_peers=Spread.of(fastest / times[:, ours]),
        load_average=load,
    )


def _write(form: _Form, model: SpeechModel, skeleton: bytes, folder: Path) -> int:
    """Write the files of a form; returns their bytes."""
    folder.mkdir()
    written = write_model(skeleton, _packed(form, model, skeleton), folder)
    return sum(path.stat().st_size for path in written.files)


def _packed(form: _Form, model: SpeechModel, skeleton: bytes) -> PackedModel:
    if form.bits is None:
        return full_precision(model)
    costs = OnnxCosts(model, skeleton, form.storage, form.kernels)
    plan = start_plan(model, costs, "onnx", "default", "dynamic", form.kernels)
    sites = (entry if entry.bits is None else entry.replace(bits=form.bits) for entry in plan.sites)
    return lower(model, settle(model, plan.replace(sites=tuple(sites), storage=form.storage)))


def _interleave(folders: Sequence[Path], shape: Sequence[int]) -> np.ndarray:
    """Seconds of a step [rounds, models] after the same tokens, the models taking turns."""
    decoders = [GraphDecoder(open_session(folder, num_threads=1)) for folder in folders]
    prompt, token = np.arange(_PAST, dtype=np.int64)[None], np.zeros((1, 1), np.int64)
    states = [graphs.step(graphs.encode(noise(shape)), prompt)[1] for graphs in decoders]
    times = np.zeros((_WARM_UP + _ROUNDS, len(decoders)))
    for row in range(len(times)):
        for turn in range(len(decoders)):
            index = (row + turn) % len(decoders)
            started = time.perf_counter()
            decoders[index].step(states[index], token)
            times[row, index] = time.perf_counter() - started
    return times[_WARM_UP:]


def measure(options: Options, progress: Progress) -> StepDocument:
    """`bitvox reproduce decoder-step`."""
    return decoder_step(options.out, SIZES, progress, options.arguments)
