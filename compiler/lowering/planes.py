"""The NumPy definition of packing: n-bit codes as power-of-two bit planes. C++ is tested against this file.

A width is a sum of powers of two, most significant first: 3 = 2 + 1, 7 = 4 + 2 + 1. The plane of width w that
covers bits [s, s + w) of every code stores element e in byte e // c at bit (e % c) * w, where c = 8 / w:

    7-bit code   c6 c5 c4 c3 | c2 c1 | c0        plane of width 4   byte:  e1 e1 e1 e1 e0 e0 e0 e0
                 \\ width 4 /  width 2  width 1   plane of width 2   byte:  e3 e3 e2 e2 e1 e1 e0 e0
                                                 plane of width 1   byte:  e7 e6 e5 e4 e3 e2 e1 e0

Each plane is padded with zero bits to whole bytes, so a tensor of a multiple of 8 elements takes exactly n
bits a weight.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.uint8]

_PLANES: dict[int, tuple[int, ...]] = {
    2: (2,),
    3: (2, 1),
    4: (4,),
    5: (4, 1),
    6: (4, 2),
    7: (4, 2, 1),
    8: (8,),
}


def plane_widths(bits: int) -> tuple[int, ...]:
    """Widths of the planes of a `bits`-wide code, most significant first; ValueError outside 2..8."""
    if bits not in _PLANES:
        raise ValueError(f"width {bits}: packing knows widths 2 to 8")
    return _PLANES[bits]


def plane_shifts(bits: int) -> tuple[int, ...]:
    """Lowest code bit that each plane of `plane_widths(bits)` covers."""
    widths = plane_widths(bits)
    return tuple(sum(widths[i + 1 :]) for i in range(len(widths)))


def plane_sizes(bits: int, count: int) -> tuple[int, ...]:
    """Bytes of each plane of `count` codes."""
    return tuple(-(-count * width // 8) for width in plane_widths(bits))


def pack_planes(codes: Codes, bits: int) -> npt.NDArray[np.uint8]:
    """Pack codes of any shape, flattened in C order, into one byte array of sum(plane_sizes) bytes.

    Raises ValueError if a code does not fit in `bits`.
    """
    flat = np.ascontiguousarray(codes, dtype=np.uint8).reshape(-1)
    if flat.size and int(flat.max()) >> bits:
        raise ValueError(f"code {int(flat.max())} does not fit in {bits} bits")
    planes = zip(plane_widths(bits), plane_shifts(bits), strict=True)
    return np.concatenate(
        [
            _pack_plane((flat >> np.uint8(shift)) & np.uint8((1 << width) - 1), width)
            for width, shift in planes
        ]
    )


def unpack_planes(buffer: npt.NDArray[np.uint8], bits: int, count: int) -> Codes:
    """Codes [count] from the bytes that `pack_planes` wrote; ValueError if the buffer has another size."""
    sizes = plane_sizes(bits, count)
    if buffer.size != sum(sizes):
        raise ValueError(
            f"{count} codes of {bits} bits take {sum(sizes)} bytes, the buffer has {buffer.size}"
        )
    codes = np.zeros(count, dtype=np.uint8)
    start = 0
    for width, shift, size in zip(plane_widths(bits), plane_shifts(bits), sizes, strict=True):
        codes |= _unpack_plane(buffer[start : start + size], width, count) << np.uint8(shift)
        start += size
    return codes


def _pack_plane(values: Codes, width: int) -> npt.NDArray[np.uint8]:
    per_byte = 8 // width
    padded = np.zeros(-(-values.size // per_byte) * per_byte, dtype=np.uint8)
    padded[: values.size] = values
    slots = padded.reshape(-1, per_byte).T
    packed = slots[0].copy()
    for position in range(1, per_byte):
        packed |= slots[position] << np.uint8(position * width)
    return packed


def _unpack_plane(plane: npt.NDArray[np.uint8], width: int, count: int) -> Codes:
    shifts = np.arange(8 // width, dtype=np.uint8) * width
    slots = (plane[:, None] >> shifts) & np.uint8((1 << width) - 1)
    return slots.reshape(-1)[:count].astype(np.uint8)
