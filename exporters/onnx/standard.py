"""`--storage standard`: ONNX's own INT2, INT4 and INT8, for tools that read the types.

A width that ONNX lacks is stored in the next wider type, and then is that width: the bits are paid for. Stock
ONNX Runtime turns INT2 and INT4 weights into MatMulNBits, which rounds activations itself; a convolution has
an integer kernel for INT8 alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bitvox.compiler.frontend.model import Site, SpeechModel
from bitvox.compiler.lowering.packed import PackedTensor
from bitvox.compiler.lowering.planes import pack_planes
from bitvox.compiler.passes.plan import Activations, QuantPlan, Storage

_TYPES = {2: ir.DataType.INT2, 4: ir.DataType.INT4}
_OPSETS = {2: 25, 4: 21}
_IR_VERSIONS = {2: 13, 4: 10}


def stored_form(
    site: Site, bits: int | None, activations: Activations, storage: Storage
) -> tuple[int | None, Activations]:
    """Width and activation mode that a decision becomes in this storage."""
    if storage == "packed" or bits is None:
        return bits, activations
    if site.operator == "conv1d" or site.tied:  # rows of narrower types cannot be looked up
        return 8, activations
    width = next(width for width in (2, 4, 8) if width >= bits)
    return width, activations if width == 8 else "float"


def settle(model: SpeechModel, plan: QuantPlan) -> QuantPlan:
    """The plan with every width as it will be stored; takes the same bytes."""
    sites = []
    for site, entry in zip(model.sites, plan.sites, strict=True):
        bits, activations = stored_form(site, entry.bits, entry.activations, plan.storage)
        sites.append(entry.replace(bits=bits, activations=activations))
    return plan.replace(sites=tuple(sites))


def is_typed(weight: PackedTensor, storage: Storage) -> bool:
    """Whether a weight is stored in a type narrower than a byte."""
    return storage == "standard" and weight.bits in _TYPES


def typed_bytes(weight: PackedTensor) -> npt.NDArray[np.uint8]:
    """A weight [N, K] as ONNX stores INT2 or INT4 [K, N]: two's complement, the first element in the lowest
    bits."""
    mask = np.uint8((1 << weight.bits) - 1)
    return pack_planes(weight.signed_codes().T.astype(np.uint8) & mask, weight.bits)


def typed_tensor(weight: PackedTensor) -> tuple[ir.DataType, tuple[int, int]]:
    """ONNX type and shape [K, N] of those bytes."""
    channels, depth = weight.shape
    return _TYPES[weight.bits], (depth, channels)


def needed_versions(plan: QuantPlan) -> tuple[int, int]:
    """Least opset and IR version that know the types of a plan."""
    narrow = [site.bits for site in plan.sites if plan.storage == "standard" and site.bits in _TYPES]
    opset = max((_OPSETS[bits] for bits in narrow if bits), default=0)
    return opset, max((_IR_VERSIONS[bits] for bits in narrow if bits), default=0)
