"""Reading back the headers of a file of packed tensors, to hold it to its plan."""

from __future__ import annotations

import mmap
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from bitvox.compiler.lowering.header import HEADER_BYTES, MAGIC, PackedHeader, decode_header
from bitvox.compiler.passes.plan import QuantPlan


def header_faults(path: Path, plan: QuantPlan) -> list[str]:
    """Every quantised site whose packed tensor is missing, damaged or of another form than the plan says.

    Packed tensors lie in the order of the sites, each behind its header; what is between them (weights at
    full precision) is passed by.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        faults: list[str] = []
        position = 0
        for entry in plan.sites:
            if entry.bits is None:
                continue
            found = _next_tensor(data, position)
            if found is None:
                return [*faults, f"{path.name}: no whole packed tensor for site {entry.site}"]
            header, position = found
            if (header.bits, header.granularity) != (entry.bits, entry.granularity):
                faults.append(
                    f"{path.name}: site {entry.site} has {header.bits} bits per {header.granularity}, "
                    f"its plan says {entry.bits} per {entry.granularity}"
                )
    return faults


def resident_faults(paths: Iterable[Path], plan: QuantPlan) -> list[str]:
    """What the weights in the kernels' own layout say, where it is not what the plan says.

    Equal weights may be in a file once, so that a width may have fewer of them than sites, but not none.
    """
    found = Counter(bits for path in paths for bits in _resident_widths(path))
    planned = Counter(entry.bits for entry in plan.sites if entry.bits and plan.computes_packed(entry))
    if found <= planned and found.keys() == planned.keys():
        return []
    return [f"packed weights: {_summary(found)}; the plan says {_summary(planned)}"]


# runtime_kernels/src/format.h: magic, version, bits; the layout starts on a line of 64 bytes.
_RESIDENT = struct.Struct("<4sHB")
_RESIDENT_MAGIC, _RESIDENT_VERSION, _LINE = b"BNBT", 1, 64


def _resident_widths(path: Path) -> Iterator[int]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        position = -1
        while (position := data.find(_RESIDENT_MAGIC, position + 1)) >= 0:
            if position % _LINE or position + _LINE > len(data):
                continue
            _, version, bits = _RESIDENT.unpack_from(data, position)
            if version == _RESIDENT_VERSION:
                yield bits


def _summary(widths: Counter[int]) -> str:
    return ", ".join(f"{count} of {bits} bits" for bits, count in sorted(widths.items())) or "none"


def _next_tensor(data: mmap.mmap, position: int) -> tuple[PackedHeader, int] | None:
    """The first header from `position` on whose checksum fits what follows it, and where that ends."""
    while (position := data.find(MAGIC, position)) >= 0:
        start = position + HEADER_BYTES
        try:
            header = decode_header(data[position:start])
        except ValueError:  # four bytes of a weight that look like a header
            position += 1
            continue
        end = start + header.planes_bytes + header.scales_bytes
        if zlib.crc32(data[start:end]) == header.crc32:
            return header, end
        position += 1
    return None
