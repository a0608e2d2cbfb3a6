"""Models of one node of the operator library, and what the NumPy specification says of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bitvox.compiler.lowering.packed import PackedTensor
from bitvox.compiler.lowering.planes import pack_planes
from bitvox.exporters.onnx.resident import resident_weight
from bitvox.runtime_kernels import reference
from bitvox.runtime_kernels.adapters.onnxruntime.library import library_path

_FETCHED = Path(__file__).parents[2] / "build" / "onnxruntime-headers" / "include"

FloatArray = npt.NDArray[np.float32]


def require_library() -> None:
    """Skip where the library could not be built; fail where it should have been."""
    if library_path().is_file():
        return
    if "ONNXRUNTIME_INCLUDE_DIR" in os.environ or _FETCHED.is_dir():
        pytest.fail(f"{library_path()}: not built although there are headers; see the output of pip install")
    pytest.skip(
        "operator library not built: no ONNX Runtime headers "
        "(run runtime_kernels/adapters/onnxruntime/fetch_headers.sh, then install bitvox again)"
    )


@dataclass(frozen=True)
class Layer:
    """Codes and parameters of one linear ([N, K]) or Conv1d ([N, C / groups, k])."""

    bits: int
    codes: npt.NDArray[np.uint8]
    scale: npt.NDArray[np.float16]
    bias: FloatArray
    groups: int = 1
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    x_scale: float = 0.0
    x_zero: int = 0
    gelu: bool = False

    @property
    def packed(self) -> npt.NDArray[np.uint8]:
        """The weight as the library reads it."""
        planes = pack_planes(self.codes, self.bits)
        return resident_weight(PackedTensor(self.bits, self.codes.shape, "channel", planes, self.scale))

    def node(self, **changes: Any) -> onnx.NodeProto:
        """The node that computes y from x, w and b, with some attributes changed."""
        attributes: dict[str, Any] = {
            "N": len(self.codes),
            "x_scale": self.x_scale,
            "x_zero": float(self.x_zero),
            "activation": "gelu" if self.gelu else "none",
        }
        kind = "NBitLinear"
        if self.codes.ndim == 3:
            kind = "NBitConv1d"
            attributes |= {
                "stride": self.stride,
                "padding": self.padding,
                "dilation": self.dilation,
                "groups": self.groups,
            }
        return helper.make_node(kind, ["x", "w", "b"], ["y"], domain="bitvox", **(attributes | changes))

    def expected(self, x: FloatArray) -> npt.NDArray[np.float64]:
        """The outputs by the specification."""
        if self.codes.ndim == 3:
            return reference.conv1d(
                x,
                self.codes,
                self.bits,
                self.scale.astype(np.float32),
                bias=self.bias,
                stride=self.stride,
                padding=self.padding,
                dilation=self.dilation,
                groups=self.groups,
                gelu=self.gelu,
                x_scale=self.x_scale or None,
                x_zero_point=self.x_zero,
            )
        rows = x.reshape(-1, x.shape[-1])
        scales, zeros = reference.parameters(self.bits, len(self.codes), 1, self.scale, None)
        if self.x_scale:
            q = reference.quantise_calibrated(rows, self.x_scale, self.x_zero)
            x_scales = np.full(len(rows), self.x_scale, np.float32)
        else:
            q, x_scales = reference.quantise_rows(rows)
        integers = reference.sums(self.codes, zeros, q, self.x_zero)
        y = reference.scaled(integers, scales, x_scales, self.bias, self.gelu)
        return y.reshape(*x.shape[:-1], len(self.codes))


def random_layer(bits: int, kind: str, static: bool, gelu: bool = False) -> Layer:
    """A layer with sizes that fill no block: `linear`, `conv` or `grouped conv`."""
    generator = np.random.default_rng([bits, static, len(kind)])
    shape = {"linear": (37, 75), "conv": (24, 10, 3), "grouped conv": (36, 6, 8)}[kind]
    geometry: dict[str, int] = {
        "linear": {},
        "conv": {"stride": 2},
        "grouped conv": {"groups": 3, "padding": 4},
    }[kind]
    return Layer(
        bits=bits,
        codes=generator.integers(0, 1 << bits, shape).astype(np.uint8),
        scale=generator.uniform(0.01, 0.1, shape[0]).astype(np.float16),
        bias=generator.standard_normal(shape[0]).astype(np.float32),
        x_scale=0.02 if static else 0.0,
        x_zero=-17 if static else 0,
        gelu=gelu,
        **geometry,
    )


def random_input(layer: Layer) -> FloatArray:
    """Rows for a linear, in two leading dimensions; more frames than one run for a convolution."""
    shape = (2, 7, layer.codes.shape[1]) if layer.codes.ndim == 2 else (2, _channels(layer), 300)
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def _channels(layer: Layer) -> int:
    return layer.codes.shape[1] * layer.groups


def save_model(
    folder: Path, node: onnx.NodeProto, weight: npt.NDArray[np.uint8], bias: FloatArray, offset: int = 0
) -> Path:
    """Write `model.onnx` whose weight lies in `weight.bin` from `offset` on."""
    (folder / "weight.bin").write_bytes(bytes(offset) + weight.tobytes())
    tensor = TensorProto(name="w", data_type=TensorProto.UINT8, dims=weight.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "weight.bin"), ("offset", str(offset)), ("length", str(weight.nbytes))):
        tensor.external_data.add(key=key, value=value)
    return _save(folder, node, [tensor, numpy_helper.from_array(bias, "b")])


def save_graph(folder: Path, node: onnx.NodeProto, constants: dict[str, FloatArray]) -> Path:
    """Write `model.onnx` of one node from x to y, with constants."""
    return _save(folder, node, [numpy_helper.from_array(array, name) for name, array in constants.items()])


def _save(folder: Path, node: onnx.NodeProto, initializers: list[TensorProto]) -> Path:
    any_shape = [None, None, None]
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, any_shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initializers,
    )
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("bitvox", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path
