"""bitvox.runtime_kernels: linear and Conv1d layers that compute on packed int2..int8 weights."""

from bitvox.runtime_kernels.api import (
    PackedWeight,
    available_isas,
    conv1d,
    isa,
    linear,
    linear_int8,
    linear_sums,
    pack,
    pack_from_planes,
    step_scales,
)
from bitvox.runtime_kernels.attention_call import attention

__all__ = [
    "PackedWeight",
    "attention",
    "available_isas",
    "conv1d",
    "isa",
    "linear",
    "linear_int8",
    "linear_sums",
    "pack",
    "pack_from_planes",
    "step_scales",
]
