"""Models of one node of the operator library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from layers import Layer

FloatArray = npt.NDArray[np.float32]


def layer_node(layer: Layer, **changes: Any) -> onnx.NodeProto:
    """The node that computes y from x, w and b, with some attributes changed."""
    attributes: dict[str, Any] = {
        "N": len(layer.codes),
        "x_scale": layer.x_scale,
        "x_zero": float(layer.x_zero),
        "activation": "gelu" if layer.gelu else "none",
    }
    kind = "NBitLinear"
    if layer.codes.ndim == 3:
        kind = "NBitConv1d"
        attributes |= {
            "stride": layer.stride,
            "padding": layer.padding,
            "dilation": layer.dilation,
            "groups": layer.groups,
        }
    return helper.make_node(kind, ["x", "w", "b"], ["y"], domain="bitvox", **(attributes | changes))


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
