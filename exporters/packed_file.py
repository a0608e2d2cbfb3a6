"""Reading back the headers of a file of packed tensors, to hold it to its plan."""

from __future__ import annotations

import mmap
import zlib
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
