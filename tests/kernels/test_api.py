"""What surrounds the numbers: forms of input, bytes, and one clear line for what does not fit."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pytest

import bitvox.runtime_kernels as rk
from bitvox.compiler.lowering.planes import pack_planes

RNG = np.random.default_rng(0)


def packed(
    bits: int = 4, shape: tuple[int, ...] = (48, 96), group_size: int | None = None
) -> rk.PackedWeight:
    return rk.pack(RNG.integers(0, 1 << bits, shape, dtype=np.uint8), bits, 0.01, None, group_size)


@pytest.mark.parametrize("bits", range(2, 9))
def test_resident_bytes_are_codes_plus_scales(bits: int) -> None:
    outputs, depth = 768, 3072
    codes = np.zeros((outputs, depth), np.uint8)
    assert rk.pack(codes, bits, 0.01).nbytes == 64 + bits * outputs * depth // 8 + 4 * outputs
    groups = depth // 32
    half = rk.pack(codes, bits, 0.5, None, 32)
    assert half.nbytes == 64 + bits * outputs * depth // 8 + 2 * outputs * groups
    single = rk.pack(codes, bits, 0.1, None, 32)
    assert single.nbytes == 64 + bits * outputs * depth // 8 + 4 * outputs * groups
    asymmetric = rk.pack(codes, bits, 0.5, 1, 32)
    assert asymmetric.nbytes == half.nbytes + outputs * groups
    if bits <= 4:
        steps = rk.pack(codes, bits, 0.1, None, 32, steps=True)
        assert steps.nbytes == 64 + bits * outputs * depth // 8 + outputs * groups + 4 * outputs


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_step_scales_are_near_and_pack(bits: int) -> None:
    scale = RNG.uniform(0, 3e-3, (20, 6)).astype(np.float32)
    scale[3] = 0
    near = rk.step_scales(scale, bits)
    largest = scale.max(axis=1, keepdims=True)
    assert (np.abs(near - scale) <= 0.501 * largest / (1 << (8 - bits))).all()
    assert np.array_equal(rk.step_scales(near, bits), near)
    codes = RNG.integers(0, 1 << bits, (20, 192), dtype=np.uint8)
    assert bytes(rk.pack(codes, bits, near, None, 32, steps=True)) == bytes(
        rk.pack_from_planes(pack_planes(codes, bits), (20, 192), bits, near, None, 32, steps=True)
    )


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("shape", [(33, 70), (20, 12, 5)])
def test_portable_planes_pack_to_the_same_bytes(bits: int, shape: tuple[int, ...]) -> None:
    codes = RNG.integers(0, 1 << bits, shape, dtype=np.uint8)
    from_codes = rk.pack(codes, bits, 0.02, 1)
    from_planes = rk.pack_from_planes(pack_planes(codes, bits), shape, bits, 0.02, 1)
    assert bytes(from_codes._native) == bytes(from_planes._native)


def test_torch_tensors_come_back_as_tensors() -> None:
    torch = pytest.importorskip("torch")
    weight = packed()
    x = torch.randn(5, 96)
    bias = torch.randn(48)
    y = rk.linear(x, weight, bias)
    assert isinstance(y, torch.Tensor)
    assert np.array_equal(y.numpy(), rk.linear(x.numpy(), weight, bias.numpy()))
    strided = torch.randn(96, 5).T
    assert torch.equal(rk.linear(strided, weight), rk.linear(strided.contiguous(), weight))


def test_strided_and_unaligned_arrays_are_copied() -> None:
    weight = packed()
    wide = RNG.standard_normal((10, 2 * 96 + 1)).astype(np.float32)
    for view in (wide[::2, ::2][:, :96], wide[:, 1:97], wide[::-1, :96]):
        assert np.array_equal(rk.linear(view, weight), rk.linear(np.ascontiguousarray(view), weight))
    shifted = np.frombuffer(b"\0" + wide[:, :96].tobytes(), np.uint8)[1:].view(np.float32).reshape(10, 96)
    assert np.array_equal(rk.linear(shifted, weight), rk.linear(wide[:, :96], weight))


def test_a_forked_process_has_threads_of_its_own() -> None:
    weight, x = packed(), RNG.standard_normal((64, 96)).astype(np.float32)
    expected = rk.linear(x, weight, num_threads=2)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(rk.linear(x, weight, num_threads=2), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_an_unknown_path_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITVOX_ISA", "mmx")
    with pytest.raises(ValueError, match=r"BITVOX_ISA names no path of this CPU; it has .*scalar"):
        rk.linear(np.zeros((1, 96), np.float32), packed())


X = np.zeros((2, 96), np.float32)
SIGNAL = np.zeros((1, 16, 50), np.float32)
CODES = np.zeros((8, 64), np.uint8)
UNEVEN = np.tile(np.float32([0.1, 0.0317]), (8, 1))

REFUSED: list[tuple[str, Callable[[], object]]] = [
    ("codes: int64 with 2 dimensions", lambda: rk.pack(CODES.astype(np.int64), 4, 1.0)),
    ("codes: uint8 with 1 dimensions", lambda: rk.pack(CODES[0], 4, 1.0)),
    ("bits must be 2..8", lambda: rk.pack(CODES, 9, 1.0)),
    ("a code does not fit its width", lambda: rk.pack(CODES + 4, 2, 1.0)),
    ("group must be 0, 32, 64 or 128", lambda: rk.pack(CODES, 4, 1.0, None, 16)),
    ("group must be", lambda: rk.pack(np.zeros((8, 80), np.uint8), 4, 1.0, None, 64)),
    ("group must be", lambda: rk.pack(np.zeros((8, 32, 3), np.uint8), 4, 1.0, None, 32)),
    ("dimension is outside its limits", lambda: rk.pack(np.zeros((1, 65537), np.uint8), 4, 1.0)),
    ("scale: shape \\(3,\\)", lambda: rk.pack(CODES, 4, np.ones(3))),
    ("scale: holds NaN", lambda: rk.pack(CODES, 4, float("nan"))),
    ("zero_point: shape", lambda: rk.pack(CODES, 4, 1.0, np.ones(3, int))),
    ("zero_point: int64; integers 0..255", lambda: rk.pack(CODES, 4, 1.0, -1)),
    ("scales of an output are no small multiples", lambda: rk.pack(CODES, 4, UNEVEN, None, 32, steps=True)),
    ("an option holds an unknown value", lambda: rk.pack(CODES, 5, 1.0, None, 32, steps=True)),
    ("bits: 5; steps are folded into codes of 2..4 bits", lambda: rk.step_scales(UNEVEN, 5)),
    ("scale: finite \\[N, groups\\] without negative", lambda: rk.step_scales(-UNEVEN, 4)),
    ("planes: ", lambda: rk.pack_from_planes(CODES, (8, 64), 4, 1.0)),
    ("a buffer has the wrong size", lambda: rk.pack_from_planes(CODES.ravel(), (8, 64), 4, 1.0)),
    ("x: float64 with 2 dimensions; float32 with 2", lambda: rk.linear(X.astype(float), packed())),
    ("x: shape \\(2, 95\\); at least one row of 96", lambda: rk.linear(X[:, :95], packed())),
    ("x: shape \\(0, 96\\)", lambda: rk.linear(X[:0], packed())),
    ("bias: 3 values; the weight has 48 outputs", lambda: rk.linear(X, packed(), np.zeros(3, np.float32))),
    ("num_threads: 0", lambda: rk.linear(X, packed(), num_threads=0)),
    ("activation: 'relu'", lambda: rk.linear(X, packed(), activation="relu")),  # type: ignore[arg-type]
    ("x_zero_point: 3 without x_scale", lambda: rk.linear(X, packed(), x_zero_point=3)),
    ("x_zero_point: 128; -128..127", lambda: rk.linear(X, packed(), x_scale=1.0, x_zero_point=128)),
    ("x_scale: -1.0", lambda: rk.linear(X, packed(), x_scale=-1.0)),
    ("out: float32 \\(2, 47\\)", lambda: rk.linear(X, packed(), out=np.zeros((2, 47), np.float32))),
    ("packed from \\(8, 16, 3\\) for conv1d", lambda: rk.linear(X, packed(4, (8, 16, 3)))),
    ("integer sums need one scale", lambda: rk.linear_sums(X.astype(np.int8), packed(4, (48, 96), 32))),
    ("does not match a weight of", lambda: rk.conv1d(SIGNAL, packed(4, (8, 15, 3)))),
    ("groups: 3; it must divide", lambda: rk.conv1d(SIGNAL, packed(4, (8, 16, 3)), groups=3)),
    ("stride: 0; at least 1", lambda: rk.conv1d(SIGNAL, packed(4, (8, 16, 3)), stride=0)),
    (
        "50 frames with padding 0; the kernel reaches over 101",
        lambda: rk.conv1d(SIGNAL, packed(4, (8, 16, 3)), dilation=50),
    ),
]


@pytest.mark.parametrize(("message", "call"), REFUSED, ids=[message for message, _ in REFUSED])
def test_bad_input_gets_one_clear_line(message: str, call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
