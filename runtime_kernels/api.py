"""The kernels as Python functions: NumPy arrays in and out, torch tensors through DLPack."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bitvox.runtime_kernels import _native  # type: ignore[attr-defined]

Activation = Literal["gelu"] | None


class _ScaleType(IntEnum):
    """nbit_scale_type."""

    F32 = 0
    F16 = 1
    STEPS = 2


@dataclass(frozen=True)
class PackedWeight:
    """A weight in the kernels' layout, the only copy that stays in memory.

    Attributes:
        bits: width of a code, 2..8.
        shape: (N, K) of a linear, (N, C, k) of a Conv1d.
        group_size: codes along K that share a scale; None for one scale per output.
    """

    bits: int
    shape: tuple[int, ...]
    group_size: int | None
    _native: _native.Packed

    @property
    def nbytes(self) -> int:
        """Resident bytes: 64, n/8 per code (K and N rounded up to 32 and 16), scales, zero points."""
        return int(self._native.nbytes)

    def __bytes__(self) -> bytes:
        """The layout that include/bitvox/nbit.h describes, the same for every instruction set."""
        return bytes(self._native)

    @classmethod
    def from_bytes(cls, packed: NDArray[np.uint8]) -> PackedWeight:
        """A copy of uint8 bytes that `bytes(weight)` gave; ValueError where they are no packed weight."""
        native = _native.Packed(np.ascontiguousarray(packed, np.uint8).reshape(-1))
        outputs, depth, taps = native.extents
        shape = (outputs, depth) if taps == 1 else (outputs, depth // taps, taps)
        return cls(native.bits, shape, native.group or None, native)


def isa() -> str:
    """The instruction set in use: BITVOX_ISA where set, else the best that this CPU has."""
    name = _native.default_isa()
    if name is None:
        raise ValueError(f"BITVOX_ISA names no path of this CPU; it has {', '.join(available_isas())}")
    return str(name)


def available_isas() -> list[str]:
    """Every path that this CPU and this build can run, best first."""
    return list(_native.available_isas())


def pack(
    codes: NDArray[np.uint8],
    bits: int,
    scale: Any,
    zero_point: Any = None,
    group_size: int | None = None,
    steps: bool = False,
) -> PackedWeight:
    """Pack codes for the kernels; weight = (code - zero_point) * scale.

    Args:
        codes: uint8 [N, K] of a linear or [N, C, k] of a Conv1d, every code below 2**bits.
        bits: 2..8.
        scale: one number, [N], or [N, K / group_size].
        zero_point: None for 2**(bits-1), else integers 0..255 shaped like scale.
        group_size: 32, 64 or 128 codes along K that share a scale; None for one scale per output.
        steps: fold scales along K into the codes while they are multiplied. They must be those of
            `step_scales`, bits at most 4 and zero_point None.

    Other scales along K are kept in half precision where that loses nothing, else in single precision.

    Raises:
        ValueError: for shapes, types or values outside of the above.
    """
    array = np.asarray(codes)
    if array.dtype != np.uint8 or array.ndim not in (2, 3):
        raise ValueError(
            f"codes: {array.dtype} with {array.ndim} dimensions; uint8 [N, K] or [N, C, k] is needed"
        )
    shape = tuple(int(extent) for extent in array.shape)
    outputs, depth, taps = _extents(shape)
    scales, zeros = _parameters(scale, zero_point, outputs, depth, group_size)
    flat = np.ascontiguousarray(array).reshape(outputs, depth)
    group = group_size or 0
    try:
        native = _native.pack(flat, scales, zeros, bits, group, taps, _scale_type(scales, group_size, steps))
    except ValueError as error:
        raise _refused(error, bits, shape, group_size) from None
    return PackedWeight(bits, shape, group_size, native)


def pack_from_planes(
    planes: NDArray[np.uint8],
    shape: tuple[int, ...],
    bits: int,
    scale: Any,
    zero_point: Any = None,
    group_size: int | None = None,
    steps: bool = False,
) -> PackedWeight:
    """Pack the portable form on disk (`bitvox.compiler.lowering.planes`); shape is (N, K) or (N, C, k).

    The other arguments and errors are those of `pack`.
    """
    buffer = np.ascontiguousarray(planes)
    if buffer.dtype != np.uint8 or buffer.ndim != 1:
        raise ValueError(
            f"planes: {buffer.dtype} with {buffer.ndim} dimensions; a flat uint8 buffer is needed"
        )
    if len(shape) not in (2, 3):
        raise ValueError(f"shape: {shape}; (N, K) or (N, C, k) is needed")
    outputs, depth, taps = _extents(shape)
    scales, zeros = _parameters(scale, zero_point, outputs, depth, group_size)
    kind = _scale_type(scales, group_size, steps)
    try:
        native = _native.pack_from_planes(
            buffer, scales, zeros, bits, outputs, depth, group_size or 0, taps, kind
        )
    except ValueError as error:
        raise _refused(error, bits, shape, group_size) from None
    return PackedWeight(bits, tuple(shape), group_size, native)


def step_scales(scale: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """The scales nearest to `scale` that `pack(..., steps=True)` takes: integers times one float per output.

    Codes of `bits` bits times 0..2**(8 - bits) fit a signed byte; so an output's largest scale is that many
    steps. A quantiser rounds its scales like this first and its weights to the codes of these scales then.

    Args:
        scale: [N, K / group_size], none negative.
        bits: 2..4.

    Raises:
        ValueError: for other widths or a negative scale.
    """
    scales = np.asarray(scale, np.float32)
    if not 2 <= bits <= 4:
        raise ValueError(f"bits: {bits}; steps are folded into codes of 2..4 bits")
    if scales.ndim != 2 or not np.isfinite(scales).all() or (scales.size and scales.min() < 0):
        raise ValueError("scale: finite [N, groups] without negative values is needed")
    most = 1 << (8 - bits)
    # 16 significant bits, so that every multiple is exact in float32.
    mantissa, exponent = np.frexp(scales.max(axis=1, keepdims=True) / np.float32(most))
    unit = np.ldexp(np.ceil(np.ldexp(mantissa, 16)), exponent - 16).astype(np.float32)
    with np.errstate(invalid="ignore"):
        counts = np.where(unit > 0, np.rint(scales / unit), 0).clip(0, most)
    return (counts * unit).astype(np.float32)


def linear(
    x: Any,
    weight: PackedWeight,
    bias: Any = None,
    num_threads: int = 1,
    activation: Activation = None,
    x_scale: float | None = None,
    x_zero_point: int = 0,
    out: NDArray[np.float32] | None = None,
) -> Any:
    """x [M, K] float32 times the weight, [M, N] float32: a NumPy array, or a torch tensor where x is one.

    Rows are quantised to 8 bits with scale max|row| / 127, or all with `x_scale` and `x_zero_point` where
    those are given (calibrated). A row that holds NaN or infinity gives NaN; a row of zeros gives the bias
    exactly. The result is written to `out` where that is given: a dense float32 [M, N].

    Raises:
        ValueError: where a shape, a type or an option does not fit.
    """
    rows = _array("x", x, np.float32, 2)
    _check_linear(rows, weight)
    _check_options(num_threads, activation)
    scale = _calibrated_scale(x_scale, x_zero_point)
    y = np.empty((rows.shape[0], weight.shape[0]), np.float32) if out is None else _result(out, rows, weight)
    options = (activation == "gelu", scale, x_zero_point, num_threads)
    _native.linear(weight._native, rows, _bias(bias, weight), *options, y)
    return _like(x, y)


def linear_int8(
    x: Any,
    weight: PackedWeight,
    x_scale: float,
    x_zero_point: int = 0,
    bias: Any = None,
    num_threads: int = 1,
    activation: Activation = None,
) -> Any:
    """`linear` on activations that are int8 [M, K] already; their value is (x - x_zero_point) * x_scale."""
    rows = _array("x", x, np.int8, 2)
    _check_linear(rows, weight)
    _check_options(num_threads, activation)
    scale = _calibrated_scale(x_scale, x_zero_point)
    y = _native.linear_int8(
        weight._native, rows, _bias(bias, weight), activation == "gelu", scale, x_zero_point, num_threads
    )
    return _like(x, y)


def linear_sums(x: Any, weight: PackedWeight, x_zero_point: int = 0, num_threads: int = 1) -> Any:
    """The exact int32 sums of (code - zero_point) * (x - x_zero_point), [M, N], for int8 x [M, K].

    Raises:
        ValueError: where `linear` would, and for weights with groups along K.
    """
    rows = _array("x", x, np.int8, 2)
    _check_linear(rows, weight)
    _check_options(num_threads, None)
    _calibrated_scale(1.0, x_zero_point)
    if weight.group_size is not None:
        raise ValueError(f"weight: group_size is {weight.group_size}; integer sums need one scale per output")
    return _like(x, _native.linear_sums(weight._native, rows, x_zero_point, num_threads))


def lookup(weight: PackedWeight, rows: Any) -> Any:
    """Rows [n, K] of a linear weight as float32, by int64 [n]; ValueError for one that it does not have."""
    return _like(rows, _native.lookup(weight._native, _array("rows", rows, np.int64, 1)))


def conv1d(
    x: Any,
    weight: PackedWeight,
    bias: Any = None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    num_threads: int = 1,
    activation: Activation = None,
    x_scale: float | None = None,
    x_zero_point: int = 0,
) -> Any:
    """x [B, C, T] float32 convolved along T, [B, N, T'] float32.

    A weight packed from [N, C / groups, k] is read window by window where the activations lie; one packed
    flat as [N, C / groups * k] is gathered first. Every run of 128 output frames of one item has its own
    activation scale.

    Raises:
        ValueError: where a shape, a type or an option does not fit.
    """
    signal = _array("x", x, np.float32, 3)
    _check_options(num_threads, activation)
    for name, value, least in (("stride", stride, 1), ("dilation", dilation, 1), ("padding", padding, 0)):
        if value < least:
            raise ValueError(f"{name}: {value}; at least {least} is needed")
    _check_conv(signal, weight, padding, dilation, groups)
    scale = _calibrated_scale(x_scale, x_zero_point)
    options = (stride, padding, dilation, groups, activation == "gelu", scale, x_zero_point, num_threads)
    return _like(x, _native.conv1d(weight._native, signal, _bias(bias, weight), *options))


def _extents(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(N, K, taps) of a weight's shape."""
    if len(shape) == 2:
        return shape[0], shape[1], 1
    return shape[0], shape[1] * shape[2], shape[2]


def _parameters(
    scale: Any, zero_point: Any, outputs: int, depth: int, group_size: int | None
) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
    """Scales and zero points as [N, groups]."""
    groups = depth // group_size if group_size else 1
    scales = np.asarray(scale, dtype=np.float32)
    if scales.ndim == 1 and scales.size == outputs and groups == 1:
        scales = scales.reshape(outputs, 1)
    if scales.ndim != 0 and scales.shape != (outputs, groups):
        raise ValueError(f"scale: shape {scales.shape}; one number or [{outputs}, {groups}] is needed")
    if not np.isfinite(scales).all():
        raise ValueError("scale: holds NaN or infinity; every scale must be finite")
    scales = np.ascontiguousarray(np.broadcast_to(scales, (outputs, groups)))
    if zero_point is None:
        return scales, None
    zeros = np.asarray(zero_point)
    if zeros.dtype.kind not in "iu" or (zeros.size and (zeros.min() < 0 or zeros.max() > 255)):
        raise ValueError(f"zero_point: {zeros.dtype}; integers 0..255 are needed")
    if zeros.ndim == 1 and zeros.size == outputs and groups == 1:
        zeros = zeros.reshape(outputs, 1)
    if zeros.ndim != 0 and zeros.shape != (outputs, groups):
        raise ValueError(f"zero_point: shape {zeros.shape}; one number or [{outputs}, {groups}] is needed")
    return scales, np.ascontiguousarray(np.broadcast_to(zeros, (outputs, groups)).astype(np.uint8))


def _scale_type(scales: NDArray[np.float32], group_size: int | None, steps: bool) -> _ScaleType:
    if steps:
        return _ScaleType.STEPS
    if group_size is None:
        return _ScaleType.F32
    with np.errstate(over="ignore"):
        fits = (scales.astype(np.float16).astype(np.float32) == scales).all()
    return _ScaleType.F16 if fits else _ScaleType.F32


def _refused(error: ValueError, bits: int, shape: tuple[int, ...], group_size: int | None) -> ValueError:
    return ValueError(f"pack: {bits}-bit codes of shape {shape}, group_size {group_size}: {error}")


def _array(name: str, value: Any, dtype: type[np.generic], rank: int) -> NDArray[Any]:
    """A dense view or copy of a NumPy array or of anything that speaks DLPack."""
    if not isinstance(value, np.ndarray) and hasattr(value, "__dlpack__"):
        try:
            value = np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError) as error:
            raise ValueError(
                f"{name}: cannot be read ({error}); a CPU tensor without gradient is needed"
            ) from None
    array = np.asarray(value)
    if array.dtype != dtype or array.ndim != rank:
        kind = np.dtype(dtype).name
        raise ValueError(f"{name}: {array.dtype} with {array.ndim} dimensions; {kind} with {rank} is needed")
    return np.ascontiguousarray(array)


def _bias(bias: Any, weight: PackedWeight) -> NDArray[np.float32] | None:
    if bias is None:
        return None
    array = _array("bias", bias, np.float32, 1)
    if array.size != weight.shape[0]:
        raise ValueError(f"bias: {array.size} values; the weight has {weight.shape[0]} outputs")
    return array


def _check_linear(rows: NDArray[Any], weight: PackedWeight) -> None:
    if len(weight.shape) != 2:
        raise ValueError(
            f"weight: packed from {weight.shape} for conv1d; linear needs one packed from [N, K]"
        )
    if rows.shape[0] < 1 or rows.shape[1] != weight.shape[1]:
        raise ValueError(f"x: shape {rows.shape}; at least one row of {weight.shape[1]} is needed")


def _result(out: NDArray[np.float32], rows: NDArray[Any], weight: PackedWeight) -> NDArray[np.float32]:
    shape = (rows.shape[0], weight.shape[0])
    if out.dtype != np.float32 or out.shape != shape or not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError(f"out: {out.dtype} {out.shape}; a dense, writeable float32 {shape} is needed")
    return out


def _check_conv(x: NDArray[Any], weight: PackedWeight, padding: int, dilation: int, groups: int) -> None:
    outputs, depth, _ = _extents(weight.shape)
    channels, frames = x.shape[1], x.shape[2]
    if groups < 1 or channels % groups or outputs % groups:
        raise ValueError(
            f"groups: {groups}; it must divide the {channels} channels and the {outputs} outputs"
        )
    per_group = channels // groups
    fits = (
        weight.shape[1] == per_group if len(weight.shape) == 3 else per_group > 0 and depth % per_group == 0
    )
    if x.shape[0] < 1 or not fits:
        raise ValueError(
            f"x: shape {x.shape} with groups={groups}; it does not match a weight of {weight.shape}"
        )
    reach = (depth // per_group - 1) * dilation + 1
    if frames + 2 * padding < reach:
        raise ValueError(f"x: {frames} frames with padding {padding}; the kernel reaches over {reach}")


def _check_options(num_threads: int, activation: Activation) -> None:
    if num_threads < 1 or num_threads > 256:
        raise ValueError(f"num_threads: {num_threads}; 1..256 is needed")
    if activation not in (None, "gelu"):
        raise ValueError(f"activation: {activation!r}; None or 'gelu' is needed")
    isa()


def _calibrated_scale(x_scale: float | None, x_zero_point: int) -> float:
    if not -128 <= x_zero_point <= 127:
        raise ValueError(f"x_zero_point: {x_zero_point}; -128..127 is needed")
    if x_scale is None:
        if x_zero_point:
            raise ValueError(f"x_zero_point: {x_zero_point} without x_scale; give both or neither")
        return 0.0
    if not 0 < x_scale < float("inf"):
        raise ValueError(f"x_scale: {x_scale}; a finite number above 0 is needed")
    return float(x_scale)


def _like(x: Any, y: NDArray[Any]) -> Any:
    """The result in the kind of array that came in."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        return torch.from_numpy(y)
    return y
