import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from bitvox.compiler.passes.calibrate import CalibratePass
from bitvox.compiler.passes.plan import WIDTHS, Range
from bitvox.compiler.passes.quantizer import (
    QuantisedSite,
    conv_bias_codes,
    conv_bias_steps,
    fake_quantise_activation,
    fake_quantise_blocks,
    fake_quantise_dynamic,
    quantise_module,
    weight_codes,
    weight_steps,
)
from bitvox.compiler.passes.start import start_plan
from bitvox.runtime_kernels import reference
from support import PackedCosts, noise_clips, tiny_context


def _weight(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_codes_and_scales_follow_the_formula(bits: int, granularity: str) -> None:
    weight = _weight((6, 5, 3))
    codes, scales = weight_codes(weight, bits, granularity, clip=0.9)
    rows = weight.reshape(1 if granularity == "tensor" else 6, -1)
    wanted = (0.9 * np.abs(rows).max(axis=1) / (2 ** (bits - 1) - 0.5)).astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(scales, wanted, rtol=2**-10)
    assert codes.dtype == np.int8
    assert codes.shape == weight.shape
    top = 2 ** (bits - 1)
    ratio = np.clip(np.rint(weight / scales.reshape(-1, 1, 1)), -top, top - 1)
    np.testing.assert_array_equal(codes, ratio)


def test_a_channel_of_three_times_the_range_does_not_clip() -> None:
    weight = _weight((4, 8, 3))
    weight[2] *= 3
    codes, scales = weight_codes(weight, 8, "channel")
    error = np.abs(codes * scales[:, None, None] - weight)
    assert (error <= 0.57 * scales[:, None, None]).all()


def test_rounding_is_half_to_even() -> None:
    weight = np.array([[0.5, 1.5, 2.5, -0.5, -1.5, 127.5]], dtype=np.float32)
    codes, scales = weight_codes(weight, 8, "tensor")
    assert scales[0] == 1.0
    assert codes.tolist() == [[0, 2, 2, 0, -2, 127]]


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-8, 1e-6, 1e-4, 1.0, 1e4, 1e30])
@pytest.mark.parametrize("bits", [2, 8])
def test_scales_stay_finite_and_right_at_the_ends_of_float16(size: float, bits: int) -> None:
    weight = np.array([[size, -size / 3], [1.0, 0.5]], dtype=np.float32)
    codes, scales = weight_codes(weight, bits, "channel")
    assert np.isfinite(scales).all()
    assert (scales > 0).all()
    np.testing.assert_array_equal(scales, scales.astype(np.float16).astype(np.float32))
    if size <= 65504:
        assert np.abs(codes * scales[:, None] - weight).max() <= 0.57 * scales.max()
    else:
        assert codes[0, 0] == 2 ** (bits - 1) - 1


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from(WIDTHS),
    st.floats(1e-9, 1e3),
    st.sampled_from(["tensor", "channel"]),
)
def test_error_is_at_most_half_a_step_inside_the_grid(
    seed: int, bits: int, size: float, granularity: str
) -> None:
    weight = _weight((3, 7), seed) * np.float32(size)
    codes, scales = weight_codes(weight, bits, granularity)
    step = np.broadcast_to(scales[:, None], weight.shape)
    inside = (weight <= (2 ** (bits - 1) - 1) * step) & (weight >= -(2 ** (bits - 1)) * step)
    assert (np.abs(codes * step - weight)[inside] <= 0.5001 * step[inside]).all()
    assert (np.abs(codes * step - weight) <= 0.57 * step).all()


def _run_onnx(nodes: list, constants: dict[str, np.ndarray], values: np.ndarray) -> np.ndarray:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, values.shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, {"x": values})[0]


@pytest.mark.parametrize("low,high", [(-1.0, 2.0), (-0.17, 31.2), (0.5, 3.0), (-3.0, -1.0), (-1e-5, 1e-5)])
def test_static_activations_are_onnx_quantise_linear(low: float, high: float) -> None:
    span = Range(low, high)
    values = np.linspace(low - 1, high + 1, 4001, dtype=np.float32)
    scale, zero = np.float32(span.scale), np.uint8(span.zero_point)
    got = _run_onnx(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
        ],
        {"s": scale, "z": zero},
        values,
    )
    np.testing.assert_array_equal(fake_quantise_activation(torch.from_numpy(values), span).numpy(), got)


@pytest.mark.parametrize("shift", [0.0, 5.0, -5.0])
def test_dynamic_activations_are_onnx_dynamic_quantise_linear(shift: float) -> None:
    values = _weight((50, 40)) + np.float32(shift)
    got = _run_onnx(
        [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
        ],
        {},
        values,
    )
    np.testing.assert_array_equal(fake_quantise_dynamic(torch.from_numpy(values)).numpy(), got)


def test_dynamic_activations_of_silence_are_zero() -> None:
    assert fake_quantise_dynamic(torch.zeros(3, 4)).eq(0).all()


def test_blocks_are_the_rows_of_the_kernels_specification() -> None:
    values = _weight((50, 40)) * np.float32(3)
    values[7] = 0.0
    values[8] *= np.float32(2.0**-110)
    codes, scales = reference.quantise_rows(values)
    got = fake_quantise_blocks(torch.from_numpy(values), dim=-1).numpy()
    np.testing.assert_array_equal(got, codes * scales[:, None])


def test_conv_bias_is_a_multiple_of_the_product_of_scales_and_fits_int32() -> None:
    steps = weight_steps(torch.tensor([[[1.0]], [[0.0]], [[1e-9]]]), 8, "channel")
    span = Range(-1.0, 1.0)
    codes = conv_bias_codes(torch.tensor([0.3, 0.3, 1e9]), span, steps)
    assert codes.abs().max() <= 2**31
    restored = codes[:2] * conv_bias_steps(span, steps)[:2]
    assert torch.allclose(restored, torch.full((2,), 0.3, dtype=torch.float64), atol=1e-4)


@pytest.mark.parametrize("activations", ["static", "dynamic", "float"])
@pytest.mark.parametrize("conv_bias", [False, True])
def test_quantised_module_at_8_bits_stays_near_full_precision(activations: str, conv_bias: bool) -> None:
    context = tiny_context(conv_bias)
    plan = start_plan(context.model, PackedCosts(), "onnx", activations=activations)
    plan = CalibratePass().run(context, plan)
    quantised = quantise_module(context.model, plan)
    clip = noise_clips()[0]
    wanted = context.model.logits(clip)
    with torch.inference_mode():
        got = quantised(torch.from_numpy(context.model.processor.features(clip))[None])[0].numpy()
    error = np.abs(got - wanted).mean() / np.abs(wanted).mean()
    assert 0 < error < (0.1 if activations == "static" else 0.06)
    assert not hasattr(context.model.module.get_submodule(context.model.sites[0].name), "plan")


def test_static_conv_is_onnx_runtimes_integer_convolution() -> None:
    context = tiny_context(conv_bias=True)
    plan = CalibratePass().run(context, start_plan(context.model, PackedCosts(), "onnx"))
    site = context.model.sites[1]
    entry, original = plan.site(site.name), context.model.site_module(site)
    assert entry.input_range
    assert entry.output_range
    assert site.conv
    codes, scales = weight_codes(original.weight.detach().numpy(), 8, "channel")
    bias = conv_bias_codes(original.bias.detach(), entry.input_range, torch.from_numpy(scales))
    constants = {
        "xs": np.float32(entry.input_range.scale),
        "xz": np.uint8(entry.input_range.zero_point),
        "w": codes,
        "ws": scales,
        "wz": np.zeros(site.channels, np.int8),
        "ys": np.float32(entry.output_range.scale),
        "yz": np.uint8(entry.output_range.zero_point),
        "b": bias.numpy().astype(np.int32),
    }
    conv = helper.make_node(
        "QLinearConv", ["q", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"], ["r"], strides=[site.conv.stride]
    )
    values = np.random.default_rng(0).uniform(-1, 1, (1, 8, 100)).astype(np.float32)
    got = _run_onnx(
        [
            helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["q"]),
            conv,
            helper.make_node("DequantizeLinear", ["r", "ys", "yz"], ["y"]),
        ],
        constants,
        values,
    )
    wanted = QuantisedSite(original, site, entry)(torch.from_numpy(values)).numpy()
    # A result that falls on the middle between two codes may round either way in float32.
    assert np.abs(got - wanted).max() <= 1.001 * constants["ys"]
    assert (got == wanted).mean() > 0.99


def test_static_conv_output_lies_on_its_grid() -> None:
    context = tiny_context(conv_bias=True)
    plan = CalibratePass().run(context, start_plan(context.model, PackedCosts(), "onnx"))
    entry = plan.site(context.model.sites[1].name)
    assert entry.output_range is not None
    module = quantise_module(context.model, plan).get_submodule(entry.site)
    output = module(torch.randn(1, 8, 100))
    codes = output / entry.output_range.scale
    assert torch.allclose(codes, codes.round(), atol=1e-3)
