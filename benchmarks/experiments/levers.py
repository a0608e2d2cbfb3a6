"""What was tried for rounding and what it is worth: each lever beside the product's own, at one width.

    bitvox reproduce levers

On the dev speakers of AN4. Every site has the same width and is rounded site after site against the drift of
those before, as the product does it; what a lever stores beyond codes and a step per output channel is
counted. A lever that the product lacks is one that saves less than it costs, or that no kernel computes.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from bitvox.benchmarks.dataset import Dataset, Utterance
from bitvox.benchmarks.experiments.experiment import Options
from bitvox.benchmarks.experiments.grids import Grid, even, gaussian, offset, rotated, round_on
from bitvox.benchmarks.experiments.judge import Judge, JudgedRow
from bitvox.benchmarks.experiments.provenance import provenance
from bitvox.benchmarks.experiments.repairs import Inputs, corrected_biases, refitted_norms
from bitvox.benchmarks.experiments.results import Document, Notebook, Schema, cell_key
from bitvox.benchmarks.experiments.speech import (
    AN4,
    described,
    draw_clips,
    gather,
    read_split,
    speech_folder,
    stratified,
)
from bitvox.compiler.frontend.model import Site, SpeechModel
from bitvox.compiler.frontend.threads import single_threaded
from bitvox.compiler.passes.drift import walking_together
from bitvox.compiler.passes.elimination import Elimination
from bitvox.compiler.passes.gptq import STRENGTH, round_rows
from bitvox.compiler.passes.group_roundings import put_weights
from bitvox.compiler.passes.input_moments import DriftMoments, InputMoments
from bitvox.compiler.passes.quantizer import quantise_module
from bitvox.compiler.passes.rows import Rows
from bitvox.planning import allocated_plan, byte_costs
from bitvox.progress import Progress, no_progress
from bitvox.request import CompileRequest
from bitvox.store import default_store
from bitvox.voice import read_voice

BITS = (2, 3)
SEED = 0
_CALIBRATION_CLIPS = 42

# Weights wanted [N, K], H [K, K], its damping, bits -> the weights that are stored.
Rounded = Callable[[Tensor, Tensor, float, int], Tensor]

# Model, copy of it with rounded weights, inputs -> names of the parameters of the copy that were repaired.
Repair = Callable[[SpeechModel, torch.nn.Module, Sequence[Inputs]], list[str]]


@dataclass(frozen=True)
class Lever:
    """One way to round.

    Attributes:
        name: In the table.
        rounded: The rounding.
        strength: Share of the drift that is made good; `gptq.STRENGTH` is the product's.
        group: Inputs that share a step, in linear sites; None is all.
        repair: Of what is not a weight, once all weights are rounded.
        note: What it would take, where the product lacks it.
    """

    name: str
    rounded: Rounded
    strength: float = STRENGTH
    group: int | None = None
    repair: Repair | None = None
    note: str = ""


def _as_compiled(wanted: Tensor, hessian: Tensor, damping: float, bits: int) -> Tensor:
    rows = Rows(wanted, torch.full((len(wanted),), float(bits)))
    found = round_rows(rows, hessian, Elimination.of(hessian, damping))
    return found.codes * found.steps[:, None]


def _on(make: Callable[[int], Grid], group: int | None = None, sweeps: int = 2) -> Rounded:
    return lambda wanted, hessian, damping, bits: round_on(
        wanted, hessian, make(bits), group, sweeps, damping
    )


def _turned(wanted: Tensor, hessian: Tensor, damping: float, bits: int) -> Tensor:
    return rotated(wanted, hessian, lambda rows, turned: _as_compiled(rows, turned, damping, bits))


LEVERS = (
    Lever("as compiled", _as_compiled),
    Lever("nothing made good", _as_compiled, strength=0.0),
    Lever("half of the drift made good", _as_compiled, strength=0.5),
    Lever("all of the drift made good", _as_compiled, strength=1.0),
    Lever("without coordinate descent and refitted steps", _on(even, sweeps=0)),
    Lever("biases corrected by the mean", _as_compiled, repair=corrected_biases),
    Lever("norms refitted", _as_compiled, repair=refitted_norms),
    Lever("steps per group of 64 inputs", _on(even, 64), group=64, note="more bytes"),
    Lever("steps per group of 128 inputs", _on(even, 128), group=128, note="more bytes"),
    Lever("grid half a step off zero", _on(offset), note="kernels with half offsets"),
    Lever("grid of a Gaussian's quantiles", _on(gaussian), note="kernels that look levels up"),
    Lever("inputs turned by a block Hadamard", _turned, note="a turn of the input at run time"),
)


@dataclass(frozen=True)
class Setting:
    """What the experiment runs on: a checkpoint, clips that calibrate and that are judged on, widths."""

    model: str
    calibration: tuple[Utterance, ...]
    judged: Dataset
    bits: tuple[int, ...] = BITS
    levers: tuple[Lever, ...] = LEVERS


class LeverRow(JudgedRow):
    """One lever at one width; `bytes` of the bundle that would hold it."""

    lever: str
    note: str


class LeverDocument(Document[LeverRow, Schema]):
    """`levers.json`."""


def levers(
    out: Path, setting: Setting, progress: Progress = no_progress, arguments: tuple[str, ...] = ()
) -> LeverDocument:
    """Measure every row that the file does not have."""
    with tempfile.TemporaryDirectory() as scratch, single_threaded():
        audio = gather(setting.calibration, Path(scratch) / "clips")
        base = CompileRequest(
            setting.model, audio=audio, method="uniform", rounding="gptq", activations="dynamic", seed=SEED
        )
        judge = Judge(read_voice(base, default_store(), no_progress), setting.judged, default_store())
        fingerprint = judge.voice.model.fingerprint
        data = {
            AN4: f"dev: {described(setting.judged)}",
            "calibration": f"{AN4} train: {len(setting.calibration)} clips drawn by seed, a quarter left out",
        }
        found = provenance("levers", arguments, setting.model, fingerprint, data)
        notebook = Notebook(out, LeverDocument, "levers", found)
        cells = [(lever, bits) for bits in setting.bits for lever in setting.levers]
        names = [one.path.name for one in (*setting.calibration, *setting.judged.utterances)]
        keys = [
            cell_key(fingerprint=fingerprint, lever=lever.name, bits=b, clips=names) for lever, b in cells
        ]
        notebook.keep(keys)
        for number, (key, (lever, bits)) in enumerate(zip(keys, cells, strict=True)):
            progress("levers", number, len(keys))
            if notebook.get(key) is None:
                notebook.add(_row(judge, base, key, lever, bits))
        progress("levers", len(keys), len(keys))
        document = notebook.write(keys)
    assert isinstance(document, LeverDocument)
    return document


def _row(judge: Judge, base: CompileRequest, key: str, lever: Lever, bits: int) -> LeverRow:
    size = judge.ladder(base).only(bits)
    plan = allocated_plan(judge.voice, replace(base, budget=size), judge.store, no_progress)
    context = judge.voice.context(byte_costs(judge.voice, plan.storage, plan.kernels))
    groups = [group for group in context.model.share_groups() if plan.site(group[0].name).bits is not None]
    changed, extra = copy.deepcopy(context.model.module), 0
    with walking_together(context, changed, [group[0] for group in groups]) as walk:
        for group in groups:
            moments, drift = walk.reach(group[0])
            for site in group:
                weight = context.model.site_module(site).weight.detach()
                put_weights(changed, {site.name: _stored(weight, moments, drift, lever, bits)})
                extra += _extra_bytes(site, lever)
    nearest = plan.replace(sites=tuple(entry.replace(rounding="nearest") for entry in plan.sites))
    module = quantise_module(context.model, nearest)
    names = [site.name for group in groups for site in group]
    put_weights(module, {name: changed.get_parameter(f"{name}.weight").detach() for name in names})
    if lever.repair is not None:
        inputs = [context.model.inputs(samples) for samples in context.clips]
        _take_over(module, changed, lever.repair(context.model, changed, inputs))
    row = {"key": key, "lever": lever.name, "note": lever.note, "method": "uniform", "bits": float(bits)}
    return judge.scored(LeverRow, module, bytes=plan.total_bytes + extra, **row)


def _take_over(module: torch.nn.Module, changed: torch.nn.Module, names: Sequence[str]) -> None:
    """Give a module those parameters of another, which in sites of a quantised one are buffers."""
    for name in names:
        owner, _, leaf = name.rpartition(".")
        place, value = module.get_submodule(owner), changed.get_parameter(name)
        setattr(
            place, leaf, value if isinstance(getattr(place, leaf), torch.nn.Parameter) else value.detach()
        )


def _stored(weight: Tensor, moments: InputMoments, drift: DriftMoments, lever: Lever, bits: int) -> Tensor:
    parts = weight.reshape(moments.groups, -1, moments.inputs)
    found = []
    for number, part in enumerate(parts):
        hessian = moments.hessian(number)
        missing = Elimination.of(hessian, moments.damping).divide(part @ drift.matrix(number))
        found.append(lever.rounded(part + lever.strength * missing, hessian, moments.damping, bits))
    return torch.stack(found).reshape(weight.shape)


def _extra_bytes(site: Site, lever: Lever) -> int:
    """Of steps in float16 beyond the one of each output channel."""
    if lever.group is None:
        return 0
    inputs = site.weights // site.channels
    return 2 * site.channels * (-(-inputs // lever.group) - 1)


def measure(options: Options, progress: Progress) -> LeverDocument:
    """`bitvox reproduce levers`; a limit is one on the judged recordings."""
    speech = speech_folder()
    calibration = draw_clips(read_split(speech, AN4, "train"), _CALIBRATION_CLIPS, SEED)
    judged = stratified(read_split(speech, AN4, "dev"), options.limit, SEED)
    setting = Setting(options.model, tuple(calibration), judged)
    return levers(options.out, setting, progress, options.arguments)
