"""ONNX Runtime's kernels, each as a graph of one layer, with inputs and outputs bound once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Run = Callable[[], object]
Array = NDArray[np.generic]


def _session(nodes: list[onnx.NodeProto], tensors: dict[str, Array], threads: int) -> ort.InferenceSession:
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _bound(
    nodes: list[onnx.NodeProto],
    tensors: dict[str, Array],
    x: NDArray[np.float32],
    shape: tuple[int, ...],
    threads: int,
) -> Run:
    session = _session(nodes, tensors, threads)
    binding = session.io_binding()
    y = np.empty(shape, np.float32)
    inputs, outputs = ort.OrtValue.ortvalue_from_numpy(x), ort.OrtValue.ortvalue_from_numpy(y)
    binding.bind_ortvalue_input("x", inputs)
    binding.bind_ortvalue_output("y", outputs)
    return lambda: session.run_with_iobinding(binding)


def fp32(x: NDArray[np.float32], outputs: int, threads: int = 1) -> Run:
    """MatMul."""
    w = np.random.default_rng(0).standard_normal((x.shape[1], outputs)).astype(np.float32)
    return _bound(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": w}, x, (x.shape[0], outputs), threads
    )


def dynamic_int8(x: NDArray[np.float32], outputs: int, threads: int = 1) -> Run:
    """DynamicQuantizeLinear and MatMulInteger with signed per-channel weights, which fuse."""
    rng = np.random.default_rng(0)
    tensors: dict[str, Array] = {
        "w": rng.integers(-127, 128, (x.shape[1], outputs)).astype(np.int8),
        "s": rng.uniform(0.01, 0.02, outputs).astype(np.float32),
        "wz": np.zeros(outputs, np.int8),
    }
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "qs", "qz"]),
        helper.make_node("MatMulInteger", ["q", "w", "qz", "wz"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["qs", "s"], ["ss"]),
        helper.make_node("Mul", ["f", "ss"], ["y"]),
    ]
    return _bound(nodes, tensors, x, (x.shape[0], outputs), threads)


def nbits(bits: int, block: int, x: NDArray[np.float32], outputs: int, threads: int = 1) -> Run:
    """com.microsoft.MatMulNBits with int8 activations (accuracy level 4)."""
    rng = np.random.default_rng(0)
    depth = x.shape[1]
    blocks = depth // block
    tensors: dict[str, Array] = {
        "w": rng.integers(0, 256, (outputs, blocks, block * bits // 8), dtype=np.uint8),
        "s": rng.uniform(0.01, 0.02, (outputs, blocks)).astype(np.float32),
    }
    attributes = {"K": depth, "N": outputs, "bits": bits, "block_size": block, "accuracy_level": 4}
    node = helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", **attributes)
    return _bound([node], tensors, x, (x.shape[0], outputs), threads)


def qlinear_conv(
    x: NDArray[np.float32],
    shape: tuple[int, int, int],
    frames_out: int,
    stride: int,
    padding: int,
    groups: int,
) -> Run:
    """QuantizeLinear, QLinearConv with per-channel int8 weights, DequantizeLinear: calibrated."""
    rng = np.random.default_rng(0)
    tensors: dict[str, Array] = {
        "w": rng.integers(-127, 128, shape).astype(np.int8),
        "ws": rng.uniform(0.01, 0.02, shape[0]).astype(np.float32),
        "wz": np.zeros(shape[0], np.int8),
        "s": np.array(0.03, np.float32),
        "z": np.array(128, np.uint8),
        "os": np.array(1.0, np.float32),
    }
    attributes: dict[str, Any] = {
        "strides": [stride],
        "pads": [padding, padding],
        "group": groups,
        "kernel_shape": [shape[2]],
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("QLinearConv", ["q", "s", "z", "w", "ws", "wz", "os", "z"], ["c"], **attributes),
        helper.make_node("DequantizeLinear", ["c", "os", "z"], ["y"]),
    ]
    return _bound(nodes, tensors, x, (x.shape[0], shape[0], frames_out), 1)


def fp32_conv(
    x: NDArray[np.float32],
    shape: tuple[int, int, int],
    frames_out: int,
    stride: int,
    padding: int,
    groups: int,
) -> Run:
    """Conv."""
    w = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    attributes: dict[str, Any] = {
        "strides": [stride],
        "pads": [padding, padding],
        "group": groups,
        "kernel_shape": [shape[2]],
    }
    node = helper.make_node("Conv", ["x", "w"], ["y"], **attributes)
    return _bound([node], {"w": w}, x, (x.shape[0], shape[0], frames_out), 1)
