"""What others' quantisers make of the same model: ONNX Runtime's own tools, and groups that have an offset.

Rows of the latter are called `-style`: their formulas, written anew, on every weight that bitvox quantises;
activations stay in float, which no row of bitvox has.
"""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor

from bitvox.benchmarks.experiments.judge import Judge
from bitvox.compiler.lowering.packed import packed_bytes
from bitvox.compiler.passes.group_roundings import put_weights
from bitvox.exporters.onnx.exporter import export_full_precision
from bitvox.planning import allocated_plan
from bitvox.progress import no_progress
from bitvox.request import CompileRequest

# Half-quadratic quantisation: the norm that errors count by, and how its weight grows (Badri and Shaji 2023).
_NORM, _WEIGHT, _GROWTH, _ROUNDS = 0.7, 10.0, 1.01, 20

Round = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Tool:
    """Another quantiser.

    Attributes:
        name: What its row is called.
        bits: Width of a code.
        quantise: Bytes of what it writes, and a module that computes what that computes.
    """

    name: str
    bits: float
    quantise: Callable[[Judge], tuple[int, torch.nn.Module]]


class _Ran(torch.nn.Module):
    """An ONNX file as a module."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def forward(self, values: Tensor) -> Tensor:
        """Logits [1, frames, outputs] of the model's input."""
        name = self._session.get_inputs()[0].name
        return torch.from_numpy(self._session.run(None, {name: values.numpy()})[0])


class _Clips(CalibrationDataReader):
    """The calibration clips, one after the other."""

    def __init__(self, judge: Judge, name: str) -> None:
        inputs = (judge.voice.model.inputs(samples)[0].numpy() for samples in judge.voice.samples)
        self._left: Iterator[dict[str, np.ndarray]] = ({name: values} for values in inputs)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The input of the next clip; None after the last."""
        return next(self._left, None)


def _by_onnxruntime(write: Callable[[Judge, Path, Path], None], judge: Judge) -> tuple[int, torch.nn.Module]:
    with tempfile.TemporaryDirectory() as scratch:
        source, whole, prepared, out = (
            Path(scratch) / name for name in ("full", "whole.onnx", "prepared.onnx", "out.onnx")
        )
        export_full_precision(judge.voice.model, source)
        (model,) = source.glob("*.onnx")
        onnx.save(onnx.load(model), whole)  # its preparation copies a graph without the data beside it
        quant_pre_process(str(whole), str(prepared), skip_symbolic_shape=True)
        write(judge, prepared, out)
        return sum(path.stat().st_size for path in Path(scratch).glob("out.onnx*")), _Ran(out)


def _dynamic(_judge: Judge, source: Path, out: Path) -> None:
    # Its integer convolution has no kernel for signed weights.
    quantize_dynamic(source, out, op_types_to_quantize=["MatMul", "Gemm"], weight_type=QuantType.QInt8)


def _static(judge: Judge, source: Path, out: Path) -> None:
    name = onnx.load(source, load_external_data=False).graph.input[0].name
    quantize_static(source, out, _Clips(judge, name), per_channel=True)


def _blocks(bits: int, _judge: Judge, source: Path, out: Path) -> None:
    quantiser = MatMulNBitsQuantizer(onnx.load(source), bits=bits, block_size=32)
    quantiser.process()
    quantiser.model.save_model_to_file(str(out), use_external_data_format=False)


def _in_groups(round_group: Round, bits: int, size: int, judge: Judge) -> tuple[int, torch.nn.Module]:
    model, module = judge.voice.model, copy.deepcopy(judge.voice.model.module)
    request = CompileRequest(model, method="uniform", budget=1 << 40, activations="dynamic")
    plan = allocated_plan(judge.voice, request, judge.store, no_progress)
    total = plan.total_bytes
    for site in model.sites:
        entry = plan.site(site.name)
        if entry.bits is None:
            continue
        weight = model.site_module(site).weight.detach()
        rows = weight.reshape(site.channels, -1)
        parts = [round_group(part, bits) for part in rows.split(size, dim=1)]
        put_weights(module, {site.name: torch.cat(parts, dim=1).reshape(weight.shape)})
        # A step and an offset in float16 for each group, in the place of what the bundle has.
        total += math.ceil(bits * site.weights / 8) + 4 * site.channels * len(parts)
        total -= packed_bytes(site, entry.bits, entry.granularity)
    return total, module


def nearest_with_offset(rows: Tensor, bits: int) -> Tensor:
    """Rows [N, K] after rounding to 2^bits even steps from each row's least to its greatest weight."""
    step, zero = _span(rows, bits)
    return (_codes(rows, step, zero, bits) - zero) * step


def half_quadratic(rows: Tensor, bits: int) -> Tensor:
    """Rows [N, K] after rounding with the offset of each that leaves least |error|^0.7 (HQQ).

    Alternates between the error that a shrinkage of it would leave and the offset that is best for that.
    """
    step, zero = _span(rows, bits)
    weight, least, best = _WEIGHT, math.inf, zero
    for _ in range(_ROUNDS):
        codes = _codes(rows, step, zero, bits)
        error = rows - (codes - zero) * step
        found = float(error.abs().mean())
        if found >= least:
            break
        least, best = found, zero
        shrunk = error.abs() - error.abs().clamp(min=1e-8).pow(_NORM - 1) / weight
        kept = error.sign() * shrunk.clamp(min=0)
        zero = (codes - (rows - kept) / step).mean(dim=1, keepdim=True)
        weight *= _GROWTH
    return (_codes(rows, step, best, bits) - best) * step


def _span(rows: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    low, high = rows.amin(dim=1, keepdim=True), rows.amax(dim=1, keepdim=True)
    step = ((high - low) / (2**bits - 1)).clamp(min=1e-8)
    return step, -low / step


def _codes(rows: Tensor, step: Tensor, zero: Tensor, bits: int) -> Tensor:
    return (rows / step + zero).round().clamp(0, 2**bits - 1)


TOOLS = (
    Tool("ONNX Runtime, dynamic int8", 8, partial(_by_onnxruntime, _dynamic)),
    Tool("ONNX Runtime, static int8", 8, partial(_by_onnxruntime, _static)),
    Tool("ONNX Runtime, MatMulNBits 4, blocks of 32", 4, partial(_by_onnxruntime, partial(_blocks, 4))),
    *(
        Tool(f"{name}-style, {bits} bits, groups of {size}", bits, partial(_in_groups, how, bits, size))
        for name, how in (("torchao", nearest_with_offset), ("HQQ", half_quadratic))
        for bits, size in ((4, 64), (3, 64), (2, 32))
    ),
)
