"""`PackedTensor` and `PackedModel`: the codes and scales that a plan asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from bitvox.compiler.frontend.model import Site, SpeechModel
from bitvox.compiler.frontend.threads import side_by_side, single_threaded
from bitvox.compiler.lowering.planes import pack_planes, plane_sizes, unpack_planes
from bitvox.compiler.passes.plan import Granularity, QuantPlan, SitePlan
from bitvox.compiler.passes.quantizer import RoundedSite, weight_codes

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

    def rounded(self) -> RoundedSite | None:
        """What the site's packed weight and bias are, for the torch model; None at full precision."""
        if not isinstance(self.weight, PackedTensor):
            return None
        steps = torch.from_numpy(self.weight.scale.astype(np.float32))
        bias = None if self.bias is None else torch.from_numpy(self.bias)
        return RoundedSite(torch.from_numpy(self.weight.signed_codes()), steps, bias)


@dataclass(frozen=True)
class PackedModel:
    """Every site's stored weight, and the plan that asked for it. Sites are in execution order."""

    plan: QuantPlan
    sites: tuple[PackedSite, ...]


def pack_weight(weight: FloatArray, bits: int, granularity: Granularity, clip: float) -> PackedTensor:
    """Round a weight [N, ...] to codes and pack them."""
    return pack_codes(*weight_codes(weight, bits, granularity, clip), bits, granularity)


def pack_codes(
    signed: npt.NDArray[np.int8], scale: FloatArray, bits: int, granularity: Granularity
) -> PackedTensor:
    """Pack signed codes [N, ...] with their scales [1] or [N]."""
    codes = (signed.astype(np.int16) + (1 << (bits - 1))).astype(np.uint8)
    return PackedTensor(
        bits=bits,
        shape=tuple(signed.shape),
        granularity=granularity,
        planes=pack_planes(codes, bits),
        scale=scale.astype(np.float16),
    )


def packed_bytes(site: Site, bits: int, granularity: Granularity) -> int:
    """What `pack_weight` will store for this site, without packing it."""
    scales = site.channels if granularity == "channel" else 1
    return sum(plane_sizes(bits, site.weights)) + 2 * scales


def lower(
    model: SpeechModel, plan: QuantPlan, rounded: Mapping[str, RoundedSite] | None = None
) -> PackedModel:
    """Pack every site of `model` as `plan` says; sites at full precision are stored as float16.

    `rounded` has the codes of the sites whose rounding is not to nearest (`rounding.round_sites`); KeyError
    where one is missing.
    """

    def store(site: Site, weight: FloatArray, bias: FloatArray | None) -> PackedSite:
        decision = plan.site(site.name)
        if decision.bits is None:
            return PackedSite(site, weight.astype(np.float16), bias)
        if decision.rounding == "nearest":
            packed = pack_weight(weight, decision.bits, decision.granularity, decision.clip)
            return PackedSite(site, packed, bias)
        found = (rounded or {})[site.name]
        codes, steps = found.codes.numpy(), found.steps.numpy()
        bias = None if found.bias is None else found.bias.numpy()
        return PackedSite(site, pack_codes(codes, steps, decision.bits, decision.granularity), bias)

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
    return PackedModel(plan, _store_sites(model, PackedSite))


def _store_sites(
    model: SpeechModel, store: Callable[[Site, FloatArray, FloatArray | None], PackedSite]
) -> tuple[PackedSite, ...]:
    def stored(site: Site) -> PackedSite:
        module = model.site_module(site)
        bias = None if module.bias is None else module.bias.detach().numpy().copy()
        return store(site, module.weight.detach().numpy(), bias)

    with single_threaded() as threads:
        return tuple(side_by_side(stored, model.sites, threads))
