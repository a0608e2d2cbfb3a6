"""`PackedTensor` and `PackedModel`: the codes and scales that a plan asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bitvox.compiler.frontend.model import Site, SpeechModel
from bitvox.compiler.lowering.planes import pack_planes, plane_sizes, unpack_planes
from bitvox.compiler.passes.plan import Granularity, QuantPlan, SitePlan
from bitvox.compiler.passes.quantizer import weight_codes

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class PackedTensor:
    """One weight in n bits: value = (code - 2^(bits-1)) * scale.

    Attributes:
        bits: Width of a code, 2 to 8.
        shape: Shape of the weight, output channels first.
        granularity: Whether `scale` has one entry or one per output channel.
        planes: Packed codes, as `pack_planes` lays them out, uint8 [sum(plane_sizes)].
        scale: Steps, float16 [1] or [shape[0]].
    """

    bits: int
    shape: tuple[int, ...]
    granularity: Granularity
    planes: npt.NDArray[np.uint8]
    scale: npt.NDArray[np.float16]

    @property
    def count(self) -> int:
        """Number of weights."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of codes and scales, exactly `bits` per weight but for the last byte of each plane."""
        return self.planes.nbytes + self.scale.nbytes

    def signed_codes(self) -> npt.NDArray[np.int8]:
        """The codes with the offset taken off, int8 of `shape`."""
        codes = unpack_planes(self.planes, self.bits, self.count).astype(np.int16)
        return (codes - (1 << (self.bits - 1))).astype(np.int8).reshape(self.shape)

    def dequantise(self) -> FloatArray:
        """The weight that the codes stand for, float32 of `shape`."""
        scale = self.scale.astype(np.float32).reshape(-1, *[1] * (len(self.shape) - 1))
        return self.signed_codes().astype(np.float32) * scale


@dataclass(frozen=True)
class PackedSite:
    """A site with its weight as stored: packed, or a float array where the plan keeps full precision."""

    site: Site
    weight: PackedTensor | npt.NDArray[np.float16] | npt.NDArray[np.float32]
    bias: FloatArray | None


@dataclass(frozen=True)
class PackedModel:
    """Every site's stored weight, and the plan that asked for it. Sites are in execution order."""

    plan: QuantPlan
    sites: tuple[PackedSite, ...]


def pack_weight(weight: FloatArray, bits: int, granularity: Granularity, clip: float) -> PackedTensor:
    """Round a weight [N, ...] to codes and pack them."""
    signed, scale = weight_codes(weight, bits, granularity, clip)
    codes = (signed.astype(np.int16) + (1 << (bits - 1))).astype(np.uint8)
    return PackedTensor(
        bits=bits,
        shape=tuple(weight.shape),
        granularity=granularity,
        planes=pack_planes(codes, bits),
        scale=scale.astype(np.float16),
    )


def packed_bytes(site: Site, bits: int, granularity: Granularity) -> int:
    """What `pack_weight` will store for this site, without packing it."""
    scales = site.channels if granularity == "channel" else 1
    return sum(plane_sizes(bits, site.weights)) + 2 * scales


def lower(model: SpeechModel, plan: QuantPlan) -> PackedModel:
    """Pack every site of `model` as `plan` says; sites at full precision are stored as float16."""

    def store(site: Site, weight: FloatArray) -> PackedTensor | npt.NDArray[np.float16]:
        decision = plan.site(site.name)
        if decision.bits is None:
            return weight.astype(np.float16)
        return pack_weight(weight, decision.bits, decision.granularity, decision.clip)

    return PackedModel(plan, _store_sites(model, store))


def full_precision(model: SpeechModel) -> PackedModel:
    """Every site in float32, as the checkpoint has it: what a packed model is compared with."""
    plan = QuantPlan(
        model=model.source,
        fingerprint=model.fingerprint,
        target="onnx",
        method="full precision",
        budget=None,
        fixed_bytes=0,
        sites=tuple(SitePlan(site.name, bits=None, activations="float") for site in model.sites),
    )
    return PackedModel(plan, _store_sites(model, lambda site, weight: weight))


def _store_sites(
    model: SpeechModel, store: Callable[[Site, FloatArray], PackedTensor | npt.NDArray[Any]]
) -> tuple[PackedSite, ...]:
    stored = []
    for site in model.sites:
        module = model.site_module(site)
        bias = None if module.bias is None else module.bias.detach().numpy().copy()
        stored.append(PackedSite(site, store(site, module.weight.detach().numpy()), bias))
    return tuple(stored)
