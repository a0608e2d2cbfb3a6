"""The models that are compared: one checkpoint with random weights, written in several forms."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np

from bitvox.benchmarks.experiments.checkpoint import write_random_checkpoint
from bitvox.code_version import code_version
from bitvox.compiler.frontend.loading import load_model
from bitvox.compiler.frontend.model import FloatArray, SpeechModel
from bitvox.compiler.lowering.packed import PackedModel, lower
from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.calibrate import CalibratePass
from bitvox.compiler.passes.plan import Activations, Kernels, QuantPlan
from bitvox.compiler.passes.start import start_plan
from bitvox.exporters.onnx.resident import resident_bytes
from bitvox.exporters.targets import exporter

CLIP_SECONDS = 1
_PACKAGES = ("torch", "transformers", "onnxruntime", "executorch", "torchao")


@dataclass(frozen=True)
class Form:
    """One way to quantise every site but those that policy keeps in full precision; no bits: none at all."""

    name: str
    what: str
    target: str
    bits: int | None = None
    kernels: Kernels = "stock"
    linears: Activations = "static"
    convolutions: Activations = "static"

    @property
    def is_ours(self) -> bool:
        """Whether bitvox's kernels run it; the others are what it is compared with."""
        return self.kernels == "packed"


FORMS = (
    Form("onnx fp32", "full precision", "onnx"),
    Form("executorch fp32", "full precision", "executorch"),
    Form("onnx int8", "dynamic matmul, QLinearConv", "onnx", 8, linears="dynamic"),
    Form("executorch int8", "8da8w linears, XNNPACK's int8 convolutions", "executorch", 8, linears="dynamic"),
    Form("onnx packed", "3 bits, calibrated activations", "onnx", 3, "packed"),
    Form("onnx packed dynamic", "3 bits, ranged at each call", "onnx", 3, "packed", "dynamic", "dynamic"),
    Form("executorch packed", "3 bits, calibrated activations", "executorch", 3, "packed"),
    Form(
        "executorch packed dynamic",
        "3 bits, ranged at each call",
        "executorch",
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
        bytes: Of the model's files.
        weight_bytes: Of the quantised sites in memory, where they stay as they are in the file; else None.
        parity: Worst relative difference of a site from the quantised torch model; None where not compared.
    """

    form: Form
    folder: Path
    bytes: int
    weight_bytes: int | None
    parity: float | None


def write_variants(kept: Path, say: Callable[[str], None]) -> tuple[int, list[Variant]]:
    """Number of parameters, and every form as model files below `kept`, written where they are not there.

    Lowering takes minutes. What it is compared with is written again when a package changes, bitvox's own
    forms also when a line of the compiler or the exporters does.
    """
    versions = [f"{name} {version(name)}" for name in _PACKAGES]
    writer = _Writer(kept / f"checkpoint {version('transformers')}", say)
    variants = []
    for form in FORMS:
        digest = hashlib.sha256(repr((form, versions)).encode())
        if form.is_ours:
            digest.update(code_version(*_PACKAGES).encode())
        folder = kept / f"{form.name} {digest.hexdigest()[:16]}"
        if not folder.exists():
            say(f"write {form.name}")
            writer.write(form, folder)
        variants.append(_read(form, folder))
    return writer.parameters, variants


_FACTS = "facts.json"


def _read(form: Form, folder: Path) -> Variant:
    facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    size = sum(path.stat().st_size for path in folder.iterdir() if path.name != _FACTS)
    return Variant(form, folder, size, facts["weight_bytes"], facts["parity"])


class _Writer:
    """Writes forms of one checkpoint, which is made when it is first needed; so are the skeletons."""

    def __init__(self, checkpoint: Path, say: Callable[[str], None]) -> None:
        self._checkpoint, self._say = checkpoint, say
        self._skeletons: dict[str, bytes] = {}

    @cached_property
    def parameters(self) -> int:
        """Of the checkpoint."""
        counted = self._checkpoint / "parameters.txt"
        if not counted.exists():
            self._say("checkpoint")
            count = write_random_checkpoint(self._checkpoint)
            counted.write_text(f"{count}\n", encoding="utf-8")
        return int(counted.read_text(encoding="utf-8"))

    @cached_property
    def _model(self) -> SpeechModel:
        assert self.parameters > 0  # it is there
        return load_model(self._checkpoint)

    def write(self, form: Form, folder: Path) -> None:
        """The model files of a form and what is told of them, whole or not at all."""
        scratch = Path(tempfile.mkdtemp(dir=folder.parent))
        facts: dict[str, float | None] = {"weight_bytes": None, "parity": None}
        if form.bits is None:
            exporter(form.target).export_full_precision(self._model, scratch)
        else:
            packed = lower(self._model, self._plan(form))
            written = exporter(form.target).write_model(self._skeleton(form), packed, scratch)
            if form.is_ours:
                proof = exporter(form.target).prove(
                    self._model, packed, written, self._clip, allow_float=False
                )
                facts = {"weight_bytes": _weight_bytes(self._model, packed), "parity": proof.parity.worst[1]}
        (scratch / _FACTS).write_text(json.dumps(facts), encoding="utf-8")
        shutil.move(scratch, folder)

    @property
    def _clip(self) -> FloatArray:
        samples = CLIP_SECONDS * self._model.processor.sampling_rate
        return np.random.default_rng(0).standard_normal(samples).astype(np.float32)

    def _skeleton(self, form: Form) -> bytes:
        if form.target not in self._skeletons:
            self._skeletons[form.target] = exporter(form.target).build_skeleton(self._model, "packed")
        return self._skeletons[form.target]

    def _plan(self, form: Form) -> QuantPlan:
        target = exporter(form.target)
        costs = target.byte_costs(self._model, self._skeleton(form), "packed", form.kernels)
        plan = start_plan(self._model, costs, form.target, "default", "static", form.kernels)
        modes = {"linear": form.linears, "conv1d": form.convolutions}
        sites = (
            entry if entry.bits is None else entry.replace(bits=form.bits, activations=modes[site.operator])
            for site, entry in zip(self._model.sites, plan.sites, strict=True)
        )
        settled = target.settle(self._model, plan.replace(sites=tuple(sites)))
        return CalibratePass().run(PassContext(self._model, (self._clip,), costs), settled)


def _weight_bytes(model: SpeechModel, packed: PackedModel) -> int:
    entries = zip(model.sites, packed.plan.sites, strict=True)
    return sum(resident_bytes(site, entry.bits) for site, entry in entries if entry.bits is not None)
