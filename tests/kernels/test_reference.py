"""Every instruction set of this machine against the NumPy specification."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bitvox.runtime_kernels as rk
from bitvox.runtime_kernels import reference

WIDTHS = range(2, 9)


@pytest.fixture(params=rk.available_isas())
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One instruction set at a time, chosen as a user would."""
    monkeypatch.setenv("BITVOX_ISA", request.param)
    assert rk.isa() == request.param
    return str(request.param)


def weight(
    rng: np.random.Generator,
    bits: int,
    shape: tuple[int, ...],
    group_size: int | None = None,
    zeros: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Random codes, scales and zero points."""
    cells = (shape[0], int(np.prod(shape[1:])) // group_size if group_size else 1)
    codes = rng.integers(0, 1 << bits, shape, dtype=np.uint8)
    scale = rng.uniform(0.001, 0.02, cells).astype(np.float32)
    zero_point = rng.integers(0, 1 << bits, cells) if zeros else None
    return codes, scale, zero_point


def close(y: np.ndarray, expected: np.ndarray, scale_of: np.ndarray | None = None) -> None:
    """Within 1e-6 of the largest magnitude: what float32 rounding of the same integers may cost."""
    largest = np.abs(expected if scale_of is None else scale_of).max()
    assert np.abs(y - expected).max() <= 1e-6 * largest


@pytest.mark.parametrize("bits", WIDTHS)
def test_integers_are_exact_on_every_small_shape(path: str, bits: int) -> None:
    rng = np.random.default_rng(bits)
    for rows in (1, 2, 3, 7, 8, 9, 17):
        for outputs in (1, 15, 16, 17, 32, 49, 64, 81):
            depth = int(rng.integers(1, 130))
            codes, scale, zeros = weight(rng, bits, (outputs, depth), zeros=bool(rng.integers(2)))
            q = rng.integers(-128, 128, (rows, depth)).astype(np.int8)
            x_zero = int(rng.integers(-128, 128)) if rng.integers(2) else 0
            packed = rk.pack(codes, bits, scale, zeros)
            got = rk.linear_sums(q, packed, x_zero)
            _, zero = reference.parameters(bits, outputs, 1, scale, zeros)
            assert np.array_equal(got, reference.sums(codes, zero, q, x_zero)[:, :, 0])


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("rows", [1, 2, 9])
def test_extremes_do_not_overflow_at_16k(path: str, bits: int, rows: int) -> None:
    depth = 16384
    for code in (0, (1 << bits) - 1):
        for x in (-128, -127, 127):
            codes = np.full((17, depth), code, np.uint8)
            q = np.full((rows, depth), x, np.int8)
            for zero in (0, (1 << bits) - 1):
                packed = rk.pack(codes, bits, 1.0, zero)
                assert (rk.linear_sums(q, packed) == (code - zero) * x * depth).all()


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("group_size", [None, 32, 64, 128])
@pytest.mark.parametrize("zeros", [False, True])
def test_linear_is_the_float64_result_of_the_same_integers(
    path: str, bits: int, group_size: int | None, zeros: bool
) -> None:
    rng = np.random.default_rng(bits)
    for rows, outputs, depth in ((1, 64, 768), (2, 96, 768), (7, 33, 256), (13, 80, 384), (50, 40, 256)):
        codes, scale, zero = weight(rng, bits, (outputs, depth), group_size, zeros)
        x = rng.standard_normal((rows, depth)).astype(np.float32)
        bias = rng.standard_normal(outputs).astype(np.float32)
        y = rk.linear(x, rk.pack(codes, bits, scale, zero, group_size), bias)
        close(y, reference.linear(x, codes, bits, scale, zero, group_size, bias))


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_steps_are_the_same_scales(path: str, bits: int, group_size: int) -> None:
    rng = np.random.default_rng(bits)
    for rows, outputs, depth in ((1, 64, 768), (2, 96, 768), (7, 33, 256), (13, 80, 384), (50, 40, 2176)):
        codes, scale, _ = weight(rng, bits, (outputs, depth), group_size)
        scale = rk.step_scales(scale, bits)
        x = rng.standard_normal((rows, depth)).astype(np.float32)
        packed = rk.pack(codes, bits, scale, None, group_size, steps=True)
        close(rk.linear(x, packed), reference.linear(x, codes, bits, scale, None, group_size))
        q = rng.integers(-128, 128, (rows, depth)).astype(np.int8)
        _, zero = reference.parameters(bits, outputs, depth // group_size, scale, None)
        integers = reference.sums(codes, zero, q, -7, group_size)
        close(
            rk.linear_int8(q, packed, 0.03, -7),
            reference.scaled(integers, scale, np.full(rows, 0.03, np.float32), None),
        )


@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_every_group_sum_is_exact(path: str, group_size: int) -> None:
    """With one scale 1 and the others 0, the output is that group's integer, exact in float32 below 2**24."""
    rng = np.random.default_rng(group_size)
    for bits in WIDTHS:
        for rows in (1, 3, 11):
            depth = 4 * group_size
            codes, _, zeros = weight(rng, bits, (20, depth), group_size, bool(bits % 2))
            q = rng.integers(-128, 128, (rows, depth)).astype(np.int8)
            _, zero = reference.parameters(bits, 20, 4, 1.0, zeros)
            expected = reference.sums(codes, zero, q, 5, group_size)
            for group in range(4):
                scale = np.zeros((20, 4), np.float32)
                scale[:, group] = 1
                got = rk.linear_int8(q, rk.pack(codes, bits, scale, zeros, group_size), 1.0, 5)
                assert np.array_equal(got, expected[:, :, group])


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_gelu_is_the_erf_form(path: str, bits: int) -> None:
    rng = np.random.default_rng(bits)
    codes, scale, _ = weight(rng, bits, (70, 64))
    x = rng.standard_normal((9, 64)).astype(np.float32)
    bias = np.linspace(-8, 8, 70).astype(np.float32)
    y = rk.linear(x, rk.pack(codes, bits, scale), bias, activation="gelu")
    expected = reference.linear(x, codes, bits, scale, bias=bias, gelu=True)
    assert np.abs(y - expected).max() < 2e-6


def test_calibrated_activations_follow_quantize_linear(path: str) -> None:
    rng = np.random.default_rng(3)
    codes, scale, zeros = weight(rng, 5, (40, 96), zeros=True)
    x = (3 * rng.standard_normal((6, 96))).astype(np.float32)
    packed = rk.pack(codes, 5, scale, zeros)
    q = reference.quantise_calibrated(x, 0.03, -20)
    y = rk.linear(x, packed, x_scale=0.03, x_zero_point=-20)
    assert np.array_equal(y, rk.linear_int8(q, packed, 0.03, -20))
    scales, zero = reference.parameters(5, 40, 1, scale, zeros)
    integers = reference.sums(codes, zero, q, -20)
    close(y, reference.scaled(integers, scales, np.full(6, 0.03, np.float32), None))


def test_zero_and_tiny_rows_give_the_bias_exactly(path: str) -> None:
    rng = np.random.default_rng(4)
    bias = rng.standard_normal(33).astype(np.float32)
    for group_size in (None, 32):
        codes, scale, _ = weight(rng, 4, (33, 64), group_size)
        x = np.zeros((3, 64), np.float32)
        x[1] = 1e-35
        x[2, 5] = -0.0
        assert np.array_equal(
            rk.linear(x, rk.pack(codes, 4, scale, None, group_size), bias), np.tile(bias, (3, 1))
        )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rows", [1, 4, 12])
def test_a_row_with_nan_or_infinity_is_nan_and_alone(path: str, bad: float, rows: int) -> None:
    rng = np.random.default_rng(5)
    codes, scale, _ = weight(rng, 3, (50, 64))
    packed = rk.pack(codes, 3, scale)
    x = rng.standard_normal((rows, 64)).astype(np.float32)
    clean = rk.linear(x, packed)
    x[rows - 1, 17] = bad
    y = rk.linear(x, packed)
    assert np.isnan(y[rows - 1]).all()
    assert np.array_equal(y[: rows - 1], clean[: rows - 1])


CONVS: list[dict[str, Any]] = [
    {"channels": 1, "outputs": 40, "taps": 10, "stride": 5},
    {"channels": 64, "outputs": 48, "taps": 3, "stride": 2},
    {"channels": 32, "outputs": 33, "taps": 2, "stride": 2},
    {"channels": 96, "outputs": 96, "taps": 16, "padding": 8, "groups": 4},
    {"channels": 80, "outputs": 32, "taps": 3, "padding": 1},
    {"channels": 24, "outputs": 24, "taps": 31, "padding": 15, "groups": 24},
    {"channels": 20, "outputs": 30, "taps": 3, "padding": 4, "dilation": 2, "groups": 2},
    {"channels": 48, "outputs": 96, "taps": 1},
]


@pytest.mark.parametrize("case", CONVS, ids=lambda c: f"c{c['channels']}k{c['taps']}g{c.get('groups', 1)}")
@pytest.mark.parametrize("bits", [2, 5, 8])
def test_conv1d(path: str, case: dict[str, Any], bits: int) -> None:
    rng = np.random.default_rng(bits)
    options = {key: case[key] for key in ("stride", "padding", "dilation", "groups") if key in case}
    shape = (case["outputs"], case["channels"] // case.get("groups", 1), case["taps"])
    codes, scale, zeros = weight(rng, bits, shape, zeros=bits == 5)
    x = rng.standard_normal((2, case["channels"], 300)).astype(np.float32)
    bias = rng.standard_normal(case["outputs"]).astype(np.float32)
    packed = rk.pack(codes, bits, scale, zeros)
    y = rk.conv1d(x, packed, bias, **options)
    close(y, reference.conv1d(x, codes, bits, scale, zeros, bias, **options))
    calibrated = {"x_scale": 0.03, "x_zero_point": 9}
    close(
        rk.conv1d(x, packed, bias, **options, **calibrated),
        reference.conv1d(x, codes, bits, scale, zeros, bias, **options, **calibrated),
    )
    flat = rk.pack(codes.reshape(shape[0], -1), bits, scale, zeros)
    assert np.array_equal(rk.conv1d(x, flat, bias, **options), y)
    assert np.array_equal(rk.conv1d(x, packed, bias, **options, num_threads=3), y)


def test_conv1d_with_gelu_and_a_bad_frame(path: str) -> None:
    rng = np.random.default_rng(6)
    codes, scale, _ = weight(rng, 4, (32, 16, 3))
    packed = rk.pack(codes, 4, scale)
    x = rng.standard_normal((1, 16, 402)).astype(np.float32)
    y = rk.conv1d(x, packed, activation="gelu")
    assert np.abs(y - reference.conv1d(x, codes, 4, scale, gelu=True)).max() < 2e-6
    x[0, 3, 200] = np.nan  # inside the second run of 128 output frames
    bad = rk.conv1d(x, packed, activation="gelu")
    assert np.isnan(bad[..., 128:256]).all()
    assert np.array_equal(bad[..., :128], y[..., :128]) and np.array_equal(bad[..., 256:], y[..., 256:])


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_do_not_change_a_bit(path: str, threads: int) -> None:
    rng = np.random.default_rng(7)
    codes, scale, _ = weight(rng, 6, (300, 128))
    packed = rk.pack(codes, 6, scale)
    for rows in (1, 5, 40, 100):
        x = rng.standard_normal((rows, 128)).astype(np.float32)
        assert np.array_equal(rk.linear(x, packed), rk.linear(x, packed, num_threads=threads))
