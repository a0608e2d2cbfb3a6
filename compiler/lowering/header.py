"""The 64 bytes in front of every packed tensor in a file, so that the file describes itself.

offset  size  field
0       4     magic `NBIT`
4       2     version of this layout
6       1     bits, 2 to 8
7       1     granularity: 0 per tensor, 1 per output channel
8       1     encoding: 0 codes offset by 2^(bits-1), 1 two's complement (8 bits only)
9       1     number of dimensions, 1 to 4
10      2     zero
12      16    shape, four little-endian u32, output channels first, unused ones zero
28      4     bytes of the planes that follow the header
32      4     bytes of the scales (float16) that follow the planes
36      4     CRC-32 of planes and scales
40      24    zero
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from bitvox.compiler.lowering.planes import plane_sizes
from bitvox.compiler.passes.plan import WIDTHS, Granularity

HEADER_BYTES = 64
MAGIC = b"NBIT"
VERSION = 1

_LAYOUT = struct.Struct("<4sHBBBB2x4IIII24x")
_GRANULARITIES: tuple[Granularity, ...] = ("tensor", "channel")
_MAXIMUM_DIMENSIONS = 4


@dataclass(frozen=True)
class PackedHeader:
    """Decoded header of one packed tensor; fields as in the table above."""

    bits: int
    shape: tuple[int, ...]
    granularity: Granularity
    twos_complement: bool
    planes_bytes: int
    scales_bytes: int
    crc32: int

    def encode(self) -> bytes:
        """The 64 bytes."""
        shape = (*self.shape, *[0] * (_MAXIMUM_DIMENSIONS - len(self.shape)))
        return _LAYOUT.pack(
            MAGIC,
            VERSION,
            self.bits,
            _GRANULARITIES.index(self.granularity),
            int(self.twos_complement),
            len(self.shape),
            *shape,
            self.planes_bytes,
            self.scales_bytes,
            self.crc32,
        )


def decode_header(buffer: bytes) -> PackedHeader:
    """Read and check a header; ValueError says what is wrong with it."""
    if len(buffer) < HEADER_BYTES:
        raise ValueError(f"packed tensor header: {len(buffer)} bytes, needs {HEADER_BYTES}")
    magic, version, bits, granularity, encoding, dimensions, *rest = _LAYOUT.unpack_from(buffer)
    if magic != MAGIC:
        raise ValueError(f"packed tensor header: magic {magic!r}, expected {MAGIC!r}")
    if version > VERSION:
        raise ValueError(f"packed tensor header: version {version}, this bitvox reads up to {VERSION}")
    if bits not in WIDTHS or granularity >= len(_GRANULARITIES) or encoding > int(bits == 8):
        raise ValueError(f"packed tensor header: bits {bits}, granularity {granularity}, encoding {encoding}")
    shape = tuple(rest[:dimensions])
    if not 1 <= dimensions <= _MAXIMUM_DIMENSIONS or not all(shape):
        raise ValueError(f"packed tensor header: shape {shape} of {dimensions} dimensions")
    planes_bytes, scales_bytes, crc32 = rest[_MAXIMUM_DIMENSIONS:]
    scales = shape[0] if _GRANULARITIES[granularity] == "channel" else 1
    if planes_bytes != sum(plane_sizes(bits, math.prod(shape))) or scales_bytes != 2 * scales:
        raise ValueError(
            f"packed tensor header: {planes_bytes} + {scales_bytes} bytes do not fit shape {shape}"
        )
    return PackedHeader(
        bits, shape, _GRANULARITIES[granularity], bool(encoding), planes_bytes, scales_bytes, crc32
    )
