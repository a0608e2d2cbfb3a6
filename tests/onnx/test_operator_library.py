"""The operators inside ONNX Runtime: the numbers of the specification, and one line for everything else."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from library_models import layer_node, save_graph, save_model
from onnx import TensorProto, helper
from operator_libraries import require_onnxruntime

from bitvox import session_options
from bitvox.compiler.passes.quantizer import RUN_FRAMES
from bitvox.errors import InputError
from bitvox.runtime_kernels import available_isas, reference
from bitvox.runtime_kernels.adapters.onnxruntime.library import library_isa
from layers import KINDS, Layer, random_input, random_layer


@pytest.fixture(autouse=True)
def library() -> None:
    require_onnxruntime()


def open_model(path: Path, num_threads: int = 1) -> onnxruntime.InferenceSession:
    options = session_options(num_threads)
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def open_layer(folder: Path, layer: Layer, num_threads: int = 1, **changes: Any) -> Any:
    return open_model(save_model(folder, layer_node(layer, **changes), layer.packed, layer.bias), num_threads)


@pytest.mark.parametrize("kind", KINDS)
def test_gelu_is_applied_last(tmp_path: Path, kind: str) -> None:
    layer = random_layer(5, kind, static=True, gelu=True)
    x = random_input(layer)
    (y,) = open_layer(tmp_path, layer).run(None, {"x": x})
    expected = layer.expected(x)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_a_run_of_frames_is_as_long_in_the_plan_as_in_the_kernel() -> None:
    assert RUN_FRAMES == reference.CONV_FRAMES


@pytest.mark.parametrize("offset", [0, 8])
def test_a_weight_that_is_not_aligned_is_copied(tmp_path: Path, offset: int) -> None:
    layer = random_layer(3, "linear", static=False)
    x = random_input(layer)
    path = save_model(tmp_path, layer_node(layer), layer.packed, layer.bias, offset)
    (y,) = open_model(path).run(None, {"x": x})
    np.testing.assert_allclose(y, layer.expected(x), rtol=1e-4, atol=1e-4)


def test_threads_and_concurrent_runs_change_no_bit(tmp_path: Path) -> None:
    layer = random_layer(3, "grouped conv", static=False)
    inputs = [np.float32(1 + index) * random_input(layer) for index in range(16)]
    alone = open_layer(tmp_path, layer)
    expected = [alone.run(None, {"x": x})[0] for x in inputs]
    shared = open_layer(tmp_path, layer, num_threads=2)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda x: shared.run(None, {"x": x})[0], inputs * 4))
    for y, wanted in zip(found, expected * 4, strict=True):
        np.testing.assert_array_equal(y, wanted)


def test_no_rows_give_no_rows(tmp_path: Path) -> None:
    linear = random_layer(4, "linear", static=False)
    (y,) = open_layer(tmp_path, linear).run(None, {"x": np.empty((1, 0, 75), np.float32)})
    assert y.shape == (1, 0, 37)
    conv = random_layer(4, "conv", static=True)
    (y,) = open_layer(tmp_path, conv).run(None, {"x": np.empty((0, 10, 9), np.float32)})
    assert y.size == 0


def test_the_runtime_knows_the_shape_of_the_output(tmp_path: Path) -> None:
    session = open_layer(tmp_path, random_layer(2, "linear", static=False))
    assert session.get_outputs()[0].shape[2] == 37
    session = open_layer(tmp_path, random_layer(2, "conv", static=False))
    assert session.get_outputs()[0].shape[1] == 24


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"N": 38}, "has 37 outputs, its node says 38"),
        ({"activation": "relu"}, "activation 'relu'; use none or gelu"),
        ({"x_scale": -1.0}, "x_scale must be 0 or a finite positive number"),
        ({"x_zero": 3.0}, "x_zero must be 0 where x_scale is 0"),
        ({"x_zero": 0.5}, "x_zero must be a whole number"),
    ],
)
def test_a_node_that_makes_no_sense_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], line: str
) -> None:
    with pytest.raises(Exception, match=f"bitvox:NBitLinear with weight 'w': {line}"):
        open_layer(tmp_path, random_layer(3, "linear", static=False), **changes)


@pytest.mark.parametrize(
    ("position", "line"),
    [(0, "does not hold a packed weight"), (8, "has the wrong size"), (60, "does not hold a packed weight")],
)
def test_a_damaged_header_is_refused_when_the_model_loads(tmp_path: Path, position: int, line: str) -> None:
    layer = random_layer(3, "linear", static=False)
    weight = layer.packed.copy()
    weight[position] ^= 0x80
    with pytest.raises(Exception, match=f"bitvox:NBitLinear with weight 'w': .*{line}"):
        open_model(save_model(tmp_path, layer_node(layer), weight, layer.bias))


def test_a_cut_weight_is_refused_when_the_model_loads(tmp_path: Path) -> None:
    layer = random_layer(3, "linear", static=False)
    with pytest.raises(Exception, match="wrong size"):
        open_model(save_model(tmp_path, layer_node(layer), layer.packed[:-64], layer.bias))


def test_an_input_that_does_not_fit_is_refused_in_one_line(tmp_path: Path) -> None:
    session = open_layer(tmp_path, random_layer(3, "linear", static=False))
    with pytest.raises(Exception, match=r"x of shape \[1, 2, 5\]; \[..., 75\] is needed"):
        session.run(None, {"x": np.zeros((1, 2, 5), np.float32)})
    session = open_layer(tmp_path, random_layer(3, "conv", static=False))
    with pytest.raises(Exception, match=r"x of shape \[1, 9, 50\]; \[batch, 10, frames\] is needed"):
        session.run(None, {"x": np.zeros((1, 9, 50), np.float32)})
    with pytest.raises(Exception, match="x of 2 frames; the kernel reaches over 3"):
        session.run(None, {"x": np.zeros((1, 10, 2), np.float32)})


def test_a_convolution_refuses_a_bias_of_another_length(tmp_path: Path) -> None:
    layer = random_layer(3, "conv", static=False)
    session = open_model(save_model(tmp_path, layer_node(layer), layer.packed, layer.bias[:-1]))
    with pytest.raises(Exception, match=r"bias of shape \[23\]; \[24\] is needed"):
        session.run(None, {"x": random_input(layer)})


@pytest.mark.parametrize("gelu", [False, True])
def test_the_norm_is_torchs_group_norm_with_a_group_per_channel(tmp_path: Path, gelu: bool) -> None:
    generator = np.random.default_rng(0)
    x = (3 + generator.standard_normal((2, 24, 1001)) * np.logspace(-2, 2, 24)[:, None]).astype(np.float32)
    norm = torch.nn.GroupNorm(24, 24)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    with torch.inference_mode():
        expected = norm.double()(torch.from_numpy(x).double())
        expected = torch.nn.functional.gelu(expected) if gelu else expected
    node = helper.make_node(
        "InstanceNorm1d",
        ["x", "s", "b"],
        ["y"],
        domain="bitvox",
        epsilon=norm.eps,
        activation="gelu" if gelu else "none",
    )
    constants = {"s": norm.weight.detach().float().numpy(), "b": norm.bias.detach().float().numpy()}
    for num_threads in (1, 2):
        (y,) = open_model(save_graph(tmp_path, node, constants), num_threads).run(None, {"x": x})
        np.testing.assert_allclose(y, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_the_library_says_which_instructions_it_uses() -> None:
    assert library_isa() in available_isas()


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BITVOX_ONNXRUNTIME_LIBRARY", str(tmp_path / "nowhere.so"))
    with pytest.raises(InputError, match=r"nowhere\.so: missing; .* ONNXRUNTIME_INCLUDE_DIR"):
        session_options()


def test_a_file_that_is_no_library_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "text.so").write_text("no library")
    monkeypatch.setenv("BITVOX_ONNXRUNTIME_LIBRARY", str(tmp_path / "text.so"))
    with pytest.raises(InputError, match=r"text\.so: ONNX Runtime .* does not take it"):
        session_options()


@pytest.mark.parametrize("rows", [1, 13])
def test_attention_is_its_specification(tmp_path: Path, rows: int) -> None:
    random = np.random.default_rng(1)
    q, k, v = (random.standard_normal((2, size, 3, 20)).astype(np.float32) for size in (rows, 70, 70))
    expected = reference.attention(q, k, v, 0.3).reshape(2, rows, 60)
    for name, kept, parts in (
        ("Attention", TensorProto.FLOAT, [part.reshape(2, -1, 60) for part in (q, k, v)]),
        (
            "CachedAttention",
            TensorProto.FLOAT16,
            [q.reshape(2, rows, 60), k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3)],
        ),
    ):
        types = (TensorProto.FLOAT, kept, kept)
        inputs = {
            port: np.ascontiguousarray(part, helper.tensor_dtype_to_np_dtype(dtype))
            for port, part, dtype in zip("qkv", parts, types, strict=True)
        }
        node = helper.make_node(name, list("qkv"), ["y"], domain="bitvox", heads=3, scale=0.3)
        ports = [
            helper.make_tensor_value_info(port, dtype, [None] * inputs[port].ndim)
            for port, dtype in zip("qkv", types, strict=True)
        ]
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("bitvox", 1)]
        graph = helper.make_graph([node], "attention", ports, [output])
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(model.SerializeToString())
        (y,) = open_model(path).run(None, inputs)
        # Halves have 11 bits.
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5 if kept == TensorProto.FLOAT else 4e-3)
        with pytest.raises(Exception, match=f"bitvox:{name}: q, k and v"):
            open_model(path).run(None, {**inputs, "v": inputs["v"][:1]})
