"""A site as one node of bitvox's operator library: its weight in the kernels' own layout, used where it is
mapped.

    bitvox:NBitLinear(x, weight, bias?), bitvox:NBitConv1d(x, weight, bias?)
    bitvox:NBitLookup(tokens, weight) of a weight that an NBitLinear reads too

The layout is the one of `runtime_kernels/README.md`, the same for every instruction set. The library asks for
64-byte alignment, which the data file grants.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitvox.compiler.frontend.model import Site
from bitvox.compiler.lowering.packed import PackedTensor
from bitvox.compiler.passes.plan import SitePlan
from bitvox.runtime_kernels import _native  # type: ignore[attr-defined]

DOMAIN = "bitvox"
ALIGNMENT = 64

_HEADER_BYTES = 64
_BLOCK_DEPTH, _BLOCK_OUTPUTS = 32, 16
_SCALE_BYTES = 2


def aligned(size: int) -> int:
    """The size rounded up to the alignment of packed weights."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def resident_weight(weight: PackedTensor) -> npt.NDArray[np.uint8]:
    """The bytes that the kernels read, uint8 [resident_bytes(...)]."""
    outputs = weight.shape[0]
    scales = np.broadcast_to(weight.scale.astype(np.float32).reshape(-1, 1), (outputs, 1))
    taps = weight.shape[2] if len(weight.shape) == 3 else 1
    depth = weight.count // outputs
    packed = _native.pack_from_planes(
        weight.planes, np.ascontiguousarray(scales), None, weight.bits, outputs, depth, 0, taps, True
    )
    return np.frombuffer(bytes(packed), np.uint8)


def resident_bytes(site: Site, bits: int) -> int:
    """Size of that form: outputs and depth rounded up to whole blocks, one float16 scale an output."""
    depth = site.weights // site.channels
    block_columns = -(-site.channels // _BLOCK_OUTPUTS)
    codes = block_columns * _BLOCK_OUTPUTS * -(-depth // _BLOCK_DEPTH) * _BLOCK_DEPTH * bits // 8
    return _HEADER_BYTES + codes + block_columns * _BLOCK_OUTPUTS * _SCALE_BYTES


def node_attributes(site: Site, plan: SitePlan, gelu: bool) -> dict[str, int | float | str]:
    """Attributes of the site's node; `x_scale` 0 ranges the activations at run time."""
    attributes: dict[str, int | float | str] = {
        "N": site.channels,
        "x_scale": 0.0,
        "x_zero": 0.0,
        "activation": "gelu" if gelu else "none",
    }
    if plan.activations == "static":
        assert plan.input_range is not None
        # The kernels' codes are signed: the uint8 grid of the plan, moved down by 128. The operator takes it
        # as a float: a small integer's size in the file would depend on the calibration.
        zero = float(plan.input_range.zero_point - 128)
        attributes |= {"x_scale": plan.input_range.scale, "x_zero": zero}
    if site.conv is not None:
        shape = site.conv
        attributes |= {
            "stride": shape.stride,
            "padding": shape.padding,
            "dilation": shape.dilation,
            "groups": shape.groups,
        }
    return attributes
