"""A bundle made by hand: a real ONNX model with the real signature that recognises letters played as tones.

Letter k is a tone of 500 (k + 1) Hz; the model's frames of 160 samples hold whole periods of each, so that
a bank of sine and cosine filters tells them apart without error.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from bitvox.compiler.frontend.processor import CTCProcessor
from bitvox.compiler.passes.plan import QuantPlan, SitePlan
from bitvox.exporters.bundle import write_atomically
from bitvox.exporters.manifest import FileEntry, Manifest

RATE, FRAME = 16000, 160
VOCABULARY = ("<pad>", "|", "A", "B", "C", "D", "E")
FloatArray = npt.NDArray[np.float32]


def play(text: str) -> FloatArray:
    """Samples that the model transcribes as `text`, ending in half a second of silence."""
    pieces = []
    for letter in text.replace(" ", "|"):
        hertz = 500 * VOCABULARY.index(letter)
        pieces += [0.3 * np.sin(2 * np.pi * hertz * np.arange(5 * FRAME) / RATE), np.zeros(2 * FRAME)]
    return np.concatenate([*pieces, np.zeros(8000)]).astype(np.float32)


def tone_processor() -> CTCProcessor:
    return CTCProcessor(
        sampling_rate=RATE,
        normalise=False,
        vocabulary=VOCABULARY,
        blank=0,
        word_delimiter="|",
        special=("<pad>",),
        minimum_samples=FRAME,
        samples_per_frame=FRAME,
    )


def tone_plan() -> QuantPlan:
    return QuantPlan(
        model="tones",
        fingerprint="0" * 64,
        target="onnx",
        method="method=uniform",
        budget=100_000,
        fixed_bytes=2000,
        storage="standard",  # a plain ONNX tensor, without a header
        sites=(SitePlan(site="filters", bits=8, reason="the only one", stored_bytes=9000),),
    )


def write_tone_model(folder: Path, confuse: tuple[str, str] | None = None) -> None:
    """`model.onnx` and `model.onnx.data`; `confuse` hears one letter as another, and not the other."""
    hertz = 500 * np.arange(len(VOCABULARY))
    if confuse:
        first, second = (VOCABULARY.index(letter) for letter in confuse)
        hertz[[first, second]] = 0, hertz[first]
    angles = 2 * np.pi * hertz[:, None] * np.arange(FRAME) / RATE
    filters = np.stack([np.sin(angles), np.cos(angles)], axis=1) / 80
    filters[hertz == 0] = 0
    threshold = np.zeros(len(VOCABULARY), dtype=np.float32)
    threshold[0] = 0.01
    constants = {
        "filters": filters.reshape(-1, 1, FRAME).astype(np.float32),
        "threshold": threshold,
        "channel": np.array([1], dtype=np.int64),
        "pairs": np.array([1, len(VOCABULARY), 2, -1], dtype=np.int64),
        "pair": np.array([2], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Unsqueeze", ["samples", "channel"], ["wave"]),
        helper.make_node("Conv", ["wave", "filters"], ["filtered"], strides=[FRAME]),
        helper.make_node("Mul", ["filtered", "filtered"], ["power"]),
        helper.make_node("Reshape", ["power", "pairs"], ["paired"]),
        helper.make_node("ReduceSum", ["paired", "pair"], ["energy"], keepdims=0),
        helper.make_node("Transpose", ["energy"], ["frames"], perm=[0, 2, 1]),
        helper.make_node("Add", ["frames", "threshold"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tones",
        [helper.make_tensor_value_info("samples", TensorProto.FLOAT, [1, "T"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, "frames", len(VOCABULARY)])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="model.onnx.data", size_threshold=512)


def tone_manifest(folder: Path) -> Manifest:
    """The manifest of the model files in a folder."""
    return Manifest(
        bitvox="0.1.0",
        target="onnx",
        source="tones",
        fingerprint="0" * 64,
        architecture="ToneForCTC",
        family="ctc",
        licence="Apache-2.0",
        processor=tone_processor(),
        plan=Manifest.plan_document(tone_plan()),
        files={path.name: FileEntry.of(path) for path in sorted(folder.iterdir())},
        operators=("ai.onnx:Conv", "ai.onnx:Unsqueeze"),
        tested_with={"onnxruntime": onnxruntime.__version__},
        audit={"filters": "Conv"},
    )


def write_tone_bundle(out: Path, confuse: tuple[str, str] | None = None) -> Path:
    """The whole bundle."""

    def fill(folder: Path) -> None:
        write_tone_model(folder, confuse)
        tone_manifest(folder).write(folder)

    write_atomically(out, fill)
    return out
