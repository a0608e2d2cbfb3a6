"""Byte-level tokens (Radford et al. 2019): what each of them adds to a text, and all of them in one string.

Whisper's vocabulary of 51,865 takes 198 kB of a manifest in this way, and 550 kB as a list of strings.
"""

from __future__ import annotations

import base64
import bz2
import re
from collections.abc import Iterable, Sequence
from functools import cache

_ESCAPED = re.compile(rb"\\(.)")


def spelled_bytes(token: str) -> bytes:
    """The bytes that a token of a tokenizer's file stands for, one letter for each byte.

    A token with a letter that stands for no byte is taken as it is written, as `tokenizers` does.
    """
    letters = _byte_of_letter()
    if all(letter in letters for letter in token):
        return bytes(letters[letter] for letter in token)
    return token.encode()


def pack_pieces(pieces: Sequence[bytes]) -> str:
    """The bytes of every token, in order, as a string of few characters that JSON leaves as they are."""
    lines = (piece.replace(b"\\", b"\\\\").replace(b"\n", b"\\n") for piece in pieces)
    return base64.b85encode(bz2.compress(b"\n".join(lines))).decode()


@cache
def unpack_pieces(packed: str) -> tuple[bytes, ...]:
    """The bytes of every token; ValueError or OSError where `pack_pieces` did not write the string."""
    lines = bz2.decompress(base64.b85decode(packed)).split(b"\n")
    return tuple(_ESCAPED.sub(_unescape, line) if b"\\" in line else line for line in lines)


def join_pieces(pieces: Iterable[bytes]) -> str:
    """Text of the bytes of tokens; a character may be spread over several. U+FFFD stands for broken ones."""
    return b"".join(pieces).decode(errors="replace")


def _unescape(match: re.Match[bytes]) -> bytes:
    return b"\n" if match[1] == b"n" else match[1]


@cache
def _byte_of_letter() -> dict[str, int]:
    """Bytes that Latin-1 prints stand for themselves, the others for U+0100 and on in their order."""
    printed = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(0x100) if byte not in printed]
    return {
        **{chr(byte): byte for byte in sorted(printed)},
        **{chr(0x100 + number): byte for number, byte in enumerate(others)},
    }
