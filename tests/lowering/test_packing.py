"""Packing against its specification: every width, odd sizes, extreme codes, headers that refuse nonsense."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitvox.compiler.lowering.header import HEADER_BYTES, PackedHeader, decode_header
from bitvox.compiler.lowering.packed import full_precision, lower, pack_weight, packed_bytes
from bitvox.compiler.lowering.planes import pack_planes, plane_sizes, plane_widths, unpack_planes
from bitvox.compiler.passes.plan import WIDTHS
from bitvox.compiler.passes.start import start_plan
from support import PackedCosts, tiny_model


@given(st.sampled_from(WIDTHS), st.integers(0, 300), st.integers(0, 2**32 - 1))
def test_round_trip(bits: int, count: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 1 << bits, count).astype(np.uint8)
    packed = pack_planes(codes, bits)
    assert packed.nbytes == sum(plane_sizes(bits, count))
    np.testing.assert_array_equal(unpack_planes(packed, bits, count), codes)


@pytest.mark.parametrize("bits", WIDTHS)
def test_a_width_takes_exactly_its_bits(bits: int) -> None:
    assert sum(plane_widths(bits)) == bits
    assert pack_planes(np.zeros(64, np.uint8), bits).nbytes * 8 == 64 * bits


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (7, 3, 2), (8, 8)])
@pytest.mark.parametrize("code", ["lowest", "highest"])
def test_extreme_codes_and_odd_shapes(bits: int, shape: tuple[int, ...], code: str) -> None:
    value = 0 if code == "lowest" else (1 << bits) - 1
    codes = np.full(shape, value, np.uint8)
    np.testing.assert_array_equal(
        unpack_planes(pack_planes(codes, bits), bits, codes.size).reshape(shape), codes
    )


def test_bytes_are_where_the_drawing_says() -> None:
    packed = pack_planes(np.array([0b1011010, 0b0000111], np.uint8), 7)
    assert [f"{byte:08b}" for byte in packed] == ["00001011", "00001101", "00000010"]


@pytest.mark.parametrize("bits", [3, 8])
def test_codes_that_do_not_fit_are_refused(bits: int) -> None:
    if bits < 8:
        with pytest.raises(ValueError, match="does not fit in 3 bits"):
            pack_planes(np.array([8], np.uint8), bits)
    with pytest.raises(ValueError, match="the buffer has 0"):
        unpack_planes(np.zeros(0, np.uint8), bits, 8)
    with pytest.raises(ValueError, match="packing knows widths 2 to 8"):
        plane_widths(9)


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_a_packed_weight_is_within_half_a_step(bits: int, granularity: str) -> None:
    weight = np.random.default_rng(bits).standard_normal((6, 5, 3)).astype(np.float32)
    packed = pack_weight(weight, bits, granularity, 1.0)  # type: ignore[arg-type]
    step = packed.scale.astype(np.float32).reshape(-1, 1, 1)
    # Half a step, and what rounding the step to float16 moves the outermost code by.
    assert np.all(np.abs(packed.dequantise() - weight) <= step * (0.5 + 2 ** (bits - 11)))


def test_lowering_stores_what_was_priced() -> None:
    model = tiny_model()
    plan = start_plan(model, PackedCosts(), "onnx")
    plan = plan.replace(sites=tuple(s if s.bits is None else s.replace(bits=3) for s in plan.sites))
    for stored, decision in zip(lower(model, plan).sites, plan.sites, strict=True):
        if decision.bits is not None:
            assert stored.weight.nbytes == packed_bytes(stored.site, 3, decision.granularity)


def test_full_precision_is_the_checkpoint() -> None:
    model = tiny_model()
    for stored in full_precision(model).sites:
        np.testing.assert_array_equal(stored.weight, model.site_module(stored.site).weight.detach().numpy())


HEADER = PackedHeader(3, (4, 6), "channel", False, sum(plane_sizes(3, 24)), 8, 12345)


def test_header_round_trip() -> None:
    encoded = HEADER.encode()
    assert len(encoded) == HEADER_BYTES
    assert decode_header(encoded) == HEADER


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (0, b"X", "magic"),
        (4, b"\x63", "version 99"),
        (6, b"\x09", "bits 9"),
        (7, b"\x07", "granularity 7"),
        (9, b"\x05", "5 dimensions"),
        (12, b"\x00", "shape"),
        (28, b"\xff", "do not fit shape"),
    ],
)
def test_a_damaged_header_is_named(offset: int, value: bytes, reason: str) -> None:
    damaged = bytearray(HEADER.encode())
    damaged[offset : offset + 1] = value
    with pytest.raises(ValueError, match=reason):
        decode_header(bytes(damaged))


@given(st.binary(max_size=HEADER_BYTES + 8))
def test_any_bytes_are_read_or_refused(buffer: bytes) -> None:
    try:
        header = decode_header(b"NBIT\x01\x00" + buffer)
    except ValueError:
        return
    assert header.bits in WIDTHS
