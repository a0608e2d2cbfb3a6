"""A torch module of the user's own as a `SpeechModel`: sites and what they share are found by running it."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from bitvox.compiler.frontend.functions import FunctionProcessor, name_of
from bitvox.compiler.frontend.graphs import one_graph
from bitvox.compiler.frontend.model import Role, SpeechModel
from bitvox.compiler.frontend.prepare import prepare
from bitvox.compiler.frontend.sites import find_sites
from bitvox.compiler.frontend.trace import trace
from bitvox.errors import InputError

FloatArray = npt.NDArray[np.float32]
Features = Callable[[FloatArray], FloatArray]
Decode = Callable[[FloatArray], str]
Writes = Literal["text", "label"]

# What a device does with the functions, where there is no torch.
_REHEARSAL = """
import importlib, json, sys
import numpy as np
sys.modules["torch"] = None
for name, shape in json.loads(sys.argv[1]):
    module, _, function = name.partition(":")
    getattr(importlib.import_module(module), function)(np.zeros(shape, np.float32))
"""


def speech_model(
    module: torch.nn.Module,
    features: Features | None,
    decode: Decode,
    sampling_rate: int,
    minimum_samples: int | None,
    writes: Writes,
    name: str | None,
) -> SpeechModel:
    """What `SpeechModel.from_module` returns; its arguments and errors are told there."""
    source = name or type(module).__name__
    own = copy.deepcopy(module).float()
    prepare(own)
    processor = FunctionProcessor(
        sampling_rate=sampling_rate,
        normalise=False,
        minimum_samples=minimum_samples or sampling_rate // 10,
        samples_per_frame=1,
        features_by=None if features is None else name_of(features, "features"),
        decode_by=name_of(decode, "decode"),
        logits_per_frame=1,
    )
    if isinstance(own, torch.nn.Linear | torch.nn.Conv1d):
        raise InputError(f"model '{source}': is one layer; put it into a module, whose layers have names")
    processor = _measured(own, processor, source)
    _rehearse(processor)
    graphs = one_graph(own, processor)
    example = graphs[0].inputs[0].smallest()
    rules = _Rules(own, _tensors_read(own, example), reads_samples=features is None)
    model = SpeechModel(
        source=source,
        fingerprint="",
        architecture=type(module).__name__,
        family="classifier" if writes == "label" else "ctc",
        module=own,
        processor=processor,
        graphs=graphs,
        sites=find_sites(own, rules, graphs),
        licence="unknown",
    )
    return dataclasses.replace(model, fingerprint=_fingerprint(model))


def _measured(module: torch.nn.Module, processor: FunctionProcessor, source: str) -> FunctionProcessor:
    """The processor with what one and two seconds, and the shortest clip, tell of the module."""
    rate = processor.sampling_rate
    lengths = (processor.minimum_samples, rate, 2 * rate)
    shapes = [_logits_shape(module, processor, samples, source) for samples in lengths]
    frames = shapes[2][1] - shapes[1][1]
    if not frames:  # one frame for the whole clip: what grows is the input
        frames = processor.input_shape(2 * rate)[0] - processor.input_shape(rate)[0]
    if frames <= 0:
        raise InputError(
            f"model '{source}': its input does not grow with the clip; only such models are taken"
        )
    per_frame = max(1, math.ceil(rate / frames))
    return processor.model_copy(update={"samples_per_frame": per_frame, "logits_per_frame": shapes[0][2]})


def _logits_shape(
    module: torch.nn.Module, processor: FunctionProcessor, samples: int, source: str
) -> tuple[int, int, int]:
    clip = np.zeros(samples, dtype=np.float32)
    seconds = samples / processor.sampling_rate
    try:
        with torch.inference_mode():
            logits = module(torch.from_numpy(processor.features(clip))[None])
    except InputError:
        raise
    except Exception as error:  # whatever the user's code raises
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"model '{source}': fails on {seconds:g} s of silence ({reason[:200]}); minimum_samples says how "
            "short a clip may be"
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.ndim != 3 or not all(logits.shape):
        found = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise InputError(
            f"model '{source}': gives {found} for {seconds:g} s; give logits of shape [1, frames, outputs], "
            "of a label for the whole clip [1, 1, outputs]"
        )
    return logits.shape[0], logits.shape[1], logits.shape[2]


def _rehearse(processor: FunctionProcessor) -> None:
    """Call the functions in a process without torch, as a device will; InputError where that fails."""
    calls: list[tuple[str, list[int]]] = [(processor.decode_by, [1, processor.outputs])]
    if processor.features_by is not None:
        calls.append((processor.features_by, [processor.minimum_samples]))
    for call in calls:
        done = subprocess.run(
            [sys.executable, "-c", _REHEARSAL, json.dumps([call])],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise InputError(f"function '{call[0]}': fails where there is no torch ({reason[:200]})")


@dataclass(frozen=True)
class _Rules:
    """Roles by what a layer is and when it runs; layers that read the same tensor share a width.

    Attributes:
        module: The prepared module.
        read: Layer -> name of what it reads, in the order in which they run.
        reads_samples: Whether the first of them reads the waveform.
    """

    module: torch.nn.Module
    read: dict[str, str]
    reads_samples: bool

    def role(self, name: str) -> Role:
        """Role of the layer of that name."""
        order = list(self.read)
        if name == order[-1]:
            return "head"
        if not isinstance(self.module.get_submodule(name), torch.nn.Conv1d):
            return "linear"
        return "input_conv" if self.reads_samples and name == order[0] else "conv"

    def share_group(self, name: str) -> str:
        """Group of the layer of that name."""
        return self.read[name]

    def activation(self, module: torch.nn.Module, name: str) -> None:
        """Not known: what reads an output is the user's own code."""


def _tensors_read(module: torch.nn.Module, example: torch.Tensor) -> dict[str, str]:
    """The first layer that read the tensor that each layer reads, by layer in execution order."""
    first: dict[int, tuple[str, torch.Tensor]] = {}  # holds the tensors: no two live ones have one id
    read: dict[str, str] = {}

    def note(name: str, inputs: tuple[Any, ...]) -> None:
        read[name] = first.setdefault(id(inputs[0]), (name, inputs[0]))[0]

    hooks = [
        child.register_forward_pre_hook(lambda _, inputs, name=name: note(name, inputs))
        for name, child in module.named_modules()
        if isinstance(child, torch.nn.Linear | torch.nn.Conv1d)
    ]
    try:
        with torch.inference_mode():
            module(example)
    finally:
        for hook in hooks:
            hook.remove()
    return read


def _fingerprint(model: SpeechModel) -> str:
    """SHA-256 of what the module computes, its processor and its tensors."""
    digest = hashlib.sha256(str(trace(model, model.graphs[0]).graph).encode())
    digest.update(model.processor.model_dump_json().encode())
    for name, tensor in sorted(model.module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().numpy().data)
    return digest.hexdigest()
