"""Sizes mean what they say: MB is 10^6, MiB is 2^20, and a ceiling is never raised."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitvox.errors import InputError
from bitvox.sizes import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("45MB", 45_000_000),
        ("45mb", 45_000_000),
        ("43MiB", 43 * 2**20),
        ("1.5MiB", 3 * 2**19),
        ("900kB", 900_000),
        ("900KiB", 900 * 1024),
        (" 2 GB ", 2_000_000_000),
        ("1000000", 1_000_000),
        ("12 B", 12),
        (".5kB", 500),
        ("0.0019kB", 1),
        ("4.35MB", 4_350_000),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["45 potatoes", "", "MB", "-3MB", "1e6", "4,5MB", "45M", "٤MB", "nan", "inf", "1.2.3MB"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_size(text)
    assert str(caught.value) == f"budget {text!r}: write a size such as 45MB (10^6 bytes) or 43MiB (2^20)"


@pytest.mark.parametrize("text", ["0", "0MB", "0.1B"])
def test_nothing_is_no_size(text: str) -> None:
    with pytest.raises(InputError, match="at least 1 byte"):
        parse_size(text)


@given(st.integers(1, 10**12))
def test_bytes_are_exact(size: int) -> None:
    assert parse_size(str(size)) == size


@given(st.integers(1, 10**12))
def test_what_is_printed_can_be_read_and_is_close(size: int) -> None:
    assert parse_size(format_size(size)) == pytest.approx(size, rel=0.006)


def test_printed_sizes() -> None:
    assert [format_size(size) for size in (812, 3_210_000, 45_000_000, 378_000_000)] == [
        "812 B",
        "3.21 MB",
        "45.0 MB",
        "378 MB",
    ]
