"""The plan before any pass: every site at the top width that its tier allows."""

from __future__ import annotations

from bitvox.compiler.frontend.model import Site, SpeechModel
from bitvox.compiler.passes.bytes import ByteCosts
from bitvox.compiler.passes.plan import WIDTHS, Activations, Kernels, QuantPlan, Rounding, SitePlan, Tier
from bitvox.compiler.passes.policy import POLICIES


def start_plan(
    model: SpeechModel,
    costs: ByteCosts,
    target: str,
    tier: Tier = "default",
    activations: Activations = "static",
    kernels: Kernels = "stock",
    rounding: Rounding = "nearest",
) -> QuantPlan:
    """Plan with every site at 8 bits, or at full precision where the tier's policy says so.

    Where `rounding` looks at the clips and the tier has one step for a whole tensor, it stays to nearest.
    Full-precision sites compute in float. So does a conv1d under `dynamic` activations with stock kernels:
    the runtimes' dynamic integer convolution is slower than the float one.
    """
    return QuantPlan(
        model=model.source,
        fingerprint=model.fingerprint,
        target=target,
        method="",
        budget=None,
        fixed_bytes=costs.fixed,
        sites=tuple(_start_site(site, costs, tier, activations, kernels, rounding) for site in model.sites),
        tier=tier,
        kernels=kernels,
    )


def _start_site(
    site: Site,
    costs: ByteCosts,
    tier: Tier,
    activations: Activations,
    kernels: Kernels,
    rounding: Rounding,
) -> SitePlan:
    policy = POLICIES[tier][site.role]
    bits = None if policy.floor is None else WIDTHS[-1]
    if activations == "static":
        activations = policy.instead_of_static
    no_kernel = site.operator == "conv1d" and activations == "dynamic" and kernels == "stock"
    in_float = bits is None or no_kernel
    mode: Activations = "float" if in_float else activations
    return SitePlan(
        site=site.name,
        bits=bits,
        granularity=policy.granularity,
        activations=mode,
        rounding=rounding if policy.granularity == "channel" and bits is not None else "nearest",
        reason="" if bits is not None else f"full precision: {policy.reason}",
        stored_bytes=costs.site(site, bits, policy.granularity, mode),
    )
