"""A program's description with every equal part written once.

The methods of a program, one for each length of audio, differ in the sizes of their values and in where those
lie in memory. Their instructions, constants and operators are the same, and so are the shapes and orders of
most values within a method. ExecuTorch's writer repeats all of them; a FlatBuffer's parts are found by
offset, so that any number of readers may be given one. For a small model this is a tenth of a tight budget.
"""

from __future__ import annotations

from typing import Any

import flatbuffers
from executorch.exir._serialize._program import (
    _ExtendedHeader,
    _get_extended_header,
    _insert_flatbuffer_header,
)
from executorch.exir._serialize.generated.executorch_flatbuffer.Program import ProgramT
from flatbuffers import number_types

_MAGIC = slice(4, 8)
_SEGMENT_ALIGNMENT = 128


def shared(program: bytes) -> bytes:
    """The same `.pte` file with a smaller description; segments are as they were."""
    header = _get_extended_header(program)
    assert header is not None  # bitvox's programs have segments
    builder = _SharingBuilder()
    builder.Finish(ProgramT.InitFromPackedBuf(program[: header.program_size]).Pack(builder), program[_MAGIC])
    description = bytes(builder.Output())
    size = -(-_ExtendedHeader.EXPECTED_LENGTH // _ALIGNMENT) * _ALIGNMENT
    start = -(-(len(description) + size) // _SEGMENT_ALIGNMENT) * _SEGMENT_ALIGNMENT
    written = _ExtendedHeader(len(description) + size, start, header.segment_data_size).to_bytes()
    with_header = _insert_flatbuffer_header(description, program[_MAGIC].decode(), written.ljust(size, b"\0"))
    segments = program[header.segment_base_offset :]
    return with_header.ljust(start, b"\0") + segments


_ALIGNMENT = 16  # no field of a program asks for more once constants and delegates are segments


class _SharingBuilder(flatbuffers.Builder):
    """Takes back what it just wrote where the same is there already.

    Children are written before what refers to them, so equal parts have equal fields and equal targets.
    """

    current_vtable: Any

    def __init__(self) -> None:
        super().__init__(1 << 16)
        self._known: dict[object, int] = {}
        self._parts: list[object] = []
        self._start = 0

    def StartObject(self, numfields: int) -> None:
        super().StartObject(numfields)
        self._begin()

    def EndObject(self) -> int:
        slots = tuple(self._start - slot if slot else 0 for slot in self.current_vtable)
        known = self._known.get((slots, *self._parts))
        if known is not None:
            self.nested, self.current_vtable = False, None
            return self._take_back(known)
        key = (slots, *self._parts)
        return self._known.setdefault(key, int(super().EndObject()))

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> int:
        before = self.Offset()
        start: int = super().StartVector(elemSize, numElems, alignment)
        self._begin()
        self._start, self._elements = before, (elemSize, numElems)
        return start

    def EndVector(self, numElems: int | None = None) -> int:
        size, count = self._elements
        targets = tuple(part for part in self._parts if isinstance(part, _Target))
        content = targets or bytes(self.Bytes[self.head : self.head + size * count])
        end: int = super().EndVector()
        key = ("vector", size, count, content)
        known = self._known.setdefault(key, end)
        return end if known == end else self._take_back(known)

    def CreateString(self, s: Any, encoding: str = "utf-8", errors: str = "strict") -> int:
        start = self.Offset()
        self._elements = (1, len(s.encode(encoding, errors) if isinstance(s, str) else s))
        self._parts, self._start = [], start
        return int(super().CreateString(s, encoding, errors))

    def Prepend(self, flags: Any, off: Any) -> None:
        self._parts.append((flags, off))
        super().Prepend(flags, off)

    def PrependUOffsetTRelative(self, off: int) -> None:
        self._parts.append(_Target(off))
        super().PrependUOffsetTRelative(off)

    def _begin(self) -> None:
        self._parts, self._start = [], self.Offset()

    def _take_back(self, known: int) -> int:
        self.head = number_types.UOffsetTFlags.py_type(len(self.Bytes) - self._start)
        return known


class _Target(int):
    """Where what an offset points to lies."""
