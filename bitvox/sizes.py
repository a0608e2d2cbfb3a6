"""Sizes as people write them: `MB` is 10^6 bytes, `MiB` is 2^20."""

from __future__ import annotations

import re
from fractions import Fraction

from bitvox.errors import InputError

_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}
_SIZE = re.compile(r"\s*(\d{1,18}(?:\.\d{1,18})?|\.\d{1,18})\s*([a-z]*)\s*", re.IGNORECASE | re.ASCII)


def parse_size(text: str, what: str = "budget") -> int:
    """Bytes of a size such as `45MB`, `1.5MiB`, `900kB` or `900000`, rounded down: a ceiling is never raised.

    `what` names the option in the InputError for anything else, zero included.
    """
    match = _SIZE.fullmatch(text)
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise InputError(f"{what} {text!r}: write a size such as 45MB (10^6 bytes) or 43MiB (2^20)")
    size = int(Fraction(match[1]) * unit)
    if size < 1:
        raise InputError(f"{what} {text!r}: a size is at least 1 byte")
    return size


def format_size(size: int) -> str:
    """A size for people, in decimal units with three or more digits: `812 B`, `3.21 MB`, `45.0 MB`."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            value = size / unit
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {name}"
    return f"{size} B"
