"""What a model file says of itself, read without the `onnx` package, which a program that only runs bundles
does not need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from bitvox.errors import InputError

# Field numbers of ModelProto and OperatorSetIdProto.
_OPSET_IMPORT, _DOMAIN = 8, 1

_VARINT, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4}


def imported_domains(model: Path) -> frozenset[str]:
    """Operator domains that an ONNX file imports, "" for ONNX's own; none where the file is damaged."""
    domains = set()
    try:
        with model.open("rb") as stream:
            for field, size in _fields(stream, model.stat().st_size):
                if field == _OPSET_IMPORT:
                    domains.add(_domain(stream, size))
                else:
                    stream.seek(size, 1)
    except OSError as error:
        raise InputError(f"{model}: cannot be read: {error.strerror}") from error
    except ValueError:  # not for this reader to explain: ONNX Runtime refuses the file and says why
        return frozenset()
    return frozenset(domains)


def _domain(stream: BinaryIO, size: int) -> str:
    name, end = "", stream.tell() + size
    for field, length in _fields(stream, end):
        content = stream.read(length)
        if field == _DOMAIN:
            name = content.decode()
    return name


def _fields(stream: BinaryIO, end: int) -> Iterator[tuple[int, int]]:
    """Number and size of every field of bytes up to `end`; whoever asks moves the stream past the content."""
    while stream.tell() < end:
        key = _varint(stream)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            _varint(stream)
        elif kind == _BYTES:
            yield number, _varint(stream)
        elif kind in _FIXED:
            stream.seek(_FIXED[kind], 1)
        else:
            raise ValueError(f"no field is of kind {kind}")


def _varint(stream: BinaryIO) -> int:
    value = shift = 0
    while True:
        byte = stream.read(1)
        if not byte or shift > 63:
            raise ValueError("ends within a number")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
        shift += 7
