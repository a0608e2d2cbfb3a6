"""Names and messages from outside, made fit for one line of a terminal."""

from __future__ import annotations

import unicodedata

# Control characters and the two separators that end a line too.
_UNPRINTABLE = ("Cc", "Zl", "Zp")


def printable(text: str) -> str:
    """The text with every character that would break a line, or steer a terminal, as its escape: `\\n`."""
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _UNPRINTABLE
        else character
        for character in text
    )
