"""The models that are compared: one checkpoint with random weights, written in several forms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bitvox.benchmarks.experiments.checkpoint import write_random_checkpoint
from bitvox.compiler.frontend.loading import load_model
from bitvox.compiler.frontend.model import FloatArray, SpeechModel
from bitvox.compiler.lowering.packed import PackedModel, full_precision, lower
from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.calibrate import CalibratePass
from bitvox.compiler.passes.plan import Activations, Kernels, QuantPlan
from bitvox.compiler.passes.start import start_plan
from bitvox.exporters.onnx.build import write_model
from bitvox.exporters.onnx.costs import OnnxCosts
from bitvox.exporters.onnx.exporter import prove
from bitvox.exporters.onnx.resident import resident_bytes
from bitvox.exporters.onnx.skeleton import build_skeleton

CLIP_SECONDS = 1


@dataclass(frozen=True)
class Form:
    """One way to quantise every site but those that policy keeps in full precision; no bits: none at all."""

    name: str
    what: str
    bits: int | None = None
    kernels: Kernels = "stock"
    linears: Activations = "static"
    convolutions: Activations = "static"


FLOAT = "fp32"
FORMS = (
    Form(FLOAT, "ONNX Runtime, full precision"),
    Form("int8", "ONNX Runtime's int8: dynamic matmul, QLinearConv", 8, linears="dynamic"),
    Form("packed-3", "3 bits, `--kernels packed`, calibrated activations", 3, "packed"),
    Form(
        "packed-3-dynamic",
        "3 bits, `--kernels packed`, activations ranged at each call",
        3,
        "packed",
        "dynamic",
        "dynamic",
    ),
)


@dataclass(frozen=True)
class Variant:
    """A written model.

    Attributes:
        weight_bytes: Of the quantised sites in memory, where they stay as they are in the file; else None.
        parity: Worst relative difference of a site from the quantised torch model; None where not compared.
    """

    form: Form
    folder: Path
    bytes: int
    weight_bytes: int | None
    parity: float | None


def write_variants(folder: Path, say: Callable[[str], None]) -> tuple[int, list[Variant]]:
    """Number of parameters, and every form as model files below `folder`."""
    say("checkpoint")
    parameters = write_random_checkpoint(folder / "checkpoint")
    model = load_model(folder / "checkpoint")
    skeleton = build_skeleton(model)
    noise = np.random.default_rng(0).standard_normal(CLIP_SECONDS * model.processor.sampling_rate)
    clip = noise.astype(np.float32)
    return parameters, [_write(form, model, skeleton, clip, folder, say) for form in FORMS]


def _write(
    form: Form,
    model: SpeechModel,
    skeleton: bytes,
    clip: FloatArray,
    folder: Path,
    say: Callable[[str], None],
) -> Variant:
    say(form.name)
    packed = full_precision(model) if form.bits is None else lower(model, _plan(form, model, skeleton, clip))
    out = folder / form.name
    out.mkdir()
    written = write_model(skeleton, packed, out)
    resident, parity = None, None
    if form.kernels == "packed":
        resident = _weight_bytes(model, packed)
        parity = prove(model, packed, written, clip, allow_float=False).parity.worst[1]
    return Variant(form, out, sum(path.stat().st_size for path in written.files), resident, parity)


def _plan(form: Form, model: SpeechModel, skeleton: bytes, clip: FloatArray) -> QuantPlan:
    costs = OnnxCosts(model, skeleton, "packed", form.kernels)
    plan = start_plan(model, costs, "onnx", "default", "static", form.kernels)
    modes = {"linear": form.linears, "conv1d": form.convolutions}
    sites = (
        entry if entry.bits is None else entry.replace(bits=form.bits, activations=modes[site.operator])
        for site, entry in zip(model.sites, plan.sites, strict=True)
    )
    return CalibratePass().run(PassContext(model, (clip,), costs), plan.replace(sites=tuple(sites)))


def _weight_bytes(model: SpeechModel, packed: PackedModel) -> int:
    entries = zip(model.sites, packed.plan.sites, strict=True)
    return sum(resident_bytes(site, entry.bits) for site, entry in entries if entry.bits is not None)
