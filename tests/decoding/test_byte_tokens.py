"""Byte-level tokens: spelled, packed and joined as `tokenizers` does it."""

from __future__ import annotations

import pytest
from tokenizers.pre_tokenizers import ByteLevel

from bitvox.compiler.frontend.byte_tokens import join_pieces, pack_pieces, spelled_bytes, unpack_pieces


def test_every_letter_spells_the_byte_that_tokenizers_writes_with_it() -> None:
    letters = ByteLevel.alphabet()
    assert len(letters) == 256
    assert {spelled_bytes(letter) for letter in letters} == {bytes([byte]) for byte in range(256)}
    text = "né 水\n\t|\x00"
    [(spelled, _)] = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    assert spelled_bytes(spelled) == text.encode()


def test_a_token_with_a_letter_of_no_byte_is_taken_as_it_is_written() -> None:
    assert spelled_bytes("水Ġ") == "水Ġ".encode()


def test_packing_keeps_every_byte_and_its_place() -> None:
    pieces = (b"", *(bytes([byte]) for byte in range(256)), b"\\n", b"\\\n", b"a\\", b"", b"\n\n", b"")
    packed = pack_pieces(pieces)
    assert unpack_pieces(packed) == pieces
    assert packed.isascii() and '"' not in packed and "\\" not in packed


@pytest.mark.parametrize("damaged", ["abc", "no such thing"])
def test_a_string_that_is_no_packed_vocabulary_is_refused(damaged: str) -> None:
    with pytest.raises((ValueError, OSError)):
        unpack_pieces(damaged)


def test_a_character_may_be_spread_over_tokens_and_a_broken_one_is_marked() -> None:
    spread = "水".encode()
    assert join_pieces([b"a", spread[:1], spread[1:2], spread[2:]]) == "a水"
    assert join_pieces([b"a", spread[:2], b"b"]) == "a\N{REPLACEMENT CHARACTER}b"
