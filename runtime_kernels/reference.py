"""The specification of the kernels in NumPy: what every instruction set must compute, integer by integer.

Integers are exact (int64 here, known to fit int32 there). Floats follow in float64, so a kernel's float32
result differs from these functions by its own few roundings and nothing else.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONV_FRAMES = 128
"""Output frames of a convolution that share an activation scale."""

_SMALLEST = np.float32(2.0**-100)


def quantise_rows(x: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Rows [M, K] to int8 [M, K] and scales [M]: scale = max|row| / 127, q = rint(row * (127 / max|row|)).

    A row below 2**-100 counts as zero (scale 0); one with NaN or infinity has codes 0 and scale NaN.
    """
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        largest = np.abs(x).max(axis=1).astype(np.float32)
        finite = np.isfinite(x).all(axis=1)
        usable = finite & (largest >= _SMALLEST)
        factor = np.where(usable, np.float32(127) / largest, np.float32(0)).astype(np.float32)
        q = np.rint(np.where(usable[:, None], x * factor[:, None], 0)).astype(np.int8)
        scale = np.where(usable, largest / np.float32(127), np.where(finite, 0, np.nan)).astype(np.float32)
    return q, scale


def quantise_calibrated(x: NDArray[np.float32], scale: float, zero_point: int) -> NDArray[np.int8]:
    """q = clip(rint(x / scale) + zero_point, -128, 127), as ONNX QuantizeLinear."""
    codes = np.rint(x / np.float32(scale)) + zero_point
    return np.clip(codes, -128, 127).astype(np.int8)


def sums(
    codes: NDArray[np.uint8],
    zero_point: NDArray[np.integer[Any]],
    q: NDArray[np.int8],
    q_zero_point: int = 0,
    group_size: int | None = None,
) -> NDArray[np.int64]:
    """The integers: sum over each group of (code - zero_point) * (q - q_zero_point), [M, N, groups].

    Args:
        codes: [N, K].
        zero_point: [N, groups].
        q: [M, K].
    """
    outputs, depth = codes.shape
    groups = zero_point.shape[1]
    size = group_size or depth
    w = codes.astype(np.int64).reshape(outputs, groups, size) - zero_point.astype(np.int64)[:, :, None]
    x = (q.astype(np.int64) - q_zero_point).reshape(-1, groups, size)
    products: NDArray[np.int64] = np.einsum(
        "ngk,mgk->mng", w.astype(np.float64), x.astype(np.float64)
    ).astype(np.int64)
    return products  # float64 holds every partial sum exactly: they stay below 2**53


def scaled(
    integers: NDArray[np.int64],
    scale: NDArray[np.float32],
    x_scale: NDArray[np.float32],
    bias: NDArray[np.float32] | None,
    gelu: bool = False,
) -> NDArray[np.float64]:
    """From sums [M, N, groups], scales [N, groups] and x_scale [M] to outputs [M, N]."""
    y = np.einsum("mng,ng->mn", integers.astype(np.float64), scale.astype(np.float64))
    y = y * x_scale.astype(np.float64)[:, None]
    if bias is not None:
        y = y + bias.astype(np.float64)
    if gelu:
        erf = np.vectorize(math.erf)
        y = 0.5 * y * (1 + erf(y / math.sqrt(2)))
    return np.asarray(y, dtype=np.float64)


def parameters(
    bits: int, outputs: int, groups: int, scale: Any, zero_point: Any
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scales and zero points as `pack` reads them, both [N, groups]."""
    default = 1 << (bits - 1)
    scales = np.asarray(scale, np.float32)
    zeros = np.asarray(default if zero_point is None else zero_point, np.int64)
    if scales.ndim == 1:
        scales = scales[:, None]
    if zeros.ndim == 1:
        zeros = zeros[:, None]
    return np.broadcast_to(scales, (outputs, groups)), np.broadcast_to(zeros, (outputs, groups))


def linear(
    x: NDArray[np.float32],
    codes: NDArray[np.uint8],
    bits: int,
    scale: Any,
    zero_point: Any = None,
    group_size: int | None = None,
    bias: NDArray[np.float32] | None = None,
    gelu: bool = False,
) -> NDArray[np.float64]:
    """`bitvox.runtime_kernels.linear` on codes [N, K] with dynamic activations, in float64."""
    outputs, depth = codes.shape
    scales, zeros = parameters(bits, outputs, depth // group_size if group_size else 1, scale, zero_point)
    q, x_scale = quantise_rows(x)
    return scaled(sums(codes, zeros, q, 0, group_size), scales, x_scale, bias, gelu)


def conv1d(
    x: NDArray[np.float32],
    codes: NDArray[np.uint8],
    bits: int,
    scale: Any,
    zero_point: Any = None,
    bias: NDArray[np.float32] | None = None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    gelu: bool = False,
    x_scale: float | None = None,
    x_zero_point: int = 0,
) -> NDArray[np.float64]:
    """`bitvox.runtime_kernels.conv1d` of x [B, C, T], codes [N, C / groups, k], in float64: [B, N, T']."""
    outputs, channels, taps = codes.shape
    scales, zeros = parameters(bits, outputs, 1, scale, zero_point)
    reach = (taps - 1) * dilation + 1
    frames_out = (x.shape[2] + 2 * padding - reach) // stride + 1
    y = np.empty((x.shape[0], outputs, frames_out))
    per_group = outputs // groups
    for item, first in np.ndindex(x.shape[0], -(-frames_out // CONV_FRAMES)):
        begin = first * CONV_FRAMES
        end = min(begin + CONV_FRAMES, frames_out)
        q, run_scale = _quantise_run(x[item], begin, end, stride, padding, reach, x_scale, x_zero_point)
        starts = np.arange(end - begin)[:, None] * stride + np.arange(taps)[None, :] * dilation
        for g in range(groups):
            rows = q[g * channels : (g + 1) * channels][:, starts].transpose(1, 0, 2).reshape(end - begin, -1)
            part = slice(g * per_group, (g + 1) * per_group)
            flat = codes[part].reshape(per_group, -1)
            integers = sums(flat, zeros[part], rows, x_zero_point)
            run_scales = np.full(end - begin, run_scale, np.float32)
            part_bias = None if bias is None else bias[part]
            y[item, part, begin:end] = scaled(integers, scales[part], run_scales, part_bias, gelu).T
    return y


def _quantise_run(
    x: NDArray[np.float32],
    begin: int,
    end: int,
    stride: int,
    padding: int,
    reach: int,
    x_scale: float | None,
    x_zero_point: int,
) -> tuple[NDArray[np.int8], np.float32]:
    """The input frames under output frames begin..end-1, [C, frames], zero padded; and their scale."""
    first = begin * stride - padding
    count = (end - begin - 1) * stride + reach
    real = x[:, max(first, 0) : max(min(first + count, x.shape[1]), 0)]
    if x_scale is None:
        if real.size:
            codes, scale = quantise_rows(real.reshape(1, -1))
            inside, run_scale = codes.reshape(real.shape), np.float32(scale[0])
        else:
            inside, run_scale = real.astype(np.int8), np.float32(0)
    else:
        inside, run_scale = quantise_calibrated(real, x_scale, x_zero_point), np.float32(x_scale)
    q = np.full((x.shape[0], count), x_zero_point, np.int8)
    at = max(-first, 0)
    q[:, at : at + inside.size // len(x)] = inside
    return q, run_scale


def attention(
    q: NDArray[np.float32],
    k: NDArray[np.float32],
    v: NDArray[np.float32],
    scale: float,
    mask: NDArray[np.float32] | None = None,
) -> NDArray[np.float64]:
    """`bitvox.runtime_kernels.attention` in float64, of q [B, M, H, D] over k and v [B, T, H, D]."""
    scores = scale * np.einsum("bmhd,bthd->bhmt", q.astype(np.float64), k.astype(np.float64))
    if mask is not None:
        scores = scores + mask
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights = powers / powers.sum(axis=-1, keepdims=True)
    return np.einsum("bhmt,bthd->bmhd", weights, v.astype(np.float64))
