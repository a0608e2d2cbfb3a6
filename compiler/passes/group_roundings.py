"""Every share group rounded at every width, once, for passes that compare widths."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bitvox.compiler.frontend.threads import side_by_side
from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.gptq import RoundedGroup, round_group
from bitvox.compiler.passes.input_moments import InputMoments, gather_moments
from bitvox.compiler.passes.plan import WIDTHS, QuantPlan
from bitvox.compiler.passes.quantizer import RoundedSite
from bitvox.compiler.passes.units import Unit


@dataclass(frozen=True, eq=False)
class Roundings:
    """One share group, rounded.

    Attributes:
        sites: Names of its members.
        at: By width.
        energy: Mean square of the members' outputs a frame, summed over their channels, without the bias.
    """

    sites: tuple[str, ...]
    at: Mapping[int, RoundedGroup]
    energy: float

    def weights(self, width: int) -> dict[str, Tensor]:
        """The members' weights at that width, float32, by site."""
        rounded = self.at[width]
        return {
            name: RoundedSite(codes, steps, None).weight()
            for name, codes, steps in zip(self.sites, rounded.codes, rounded.steps, strict=True)
        }

    def relative_errors(self) -> dict[int, float]:
        """Output error over output energy, by each of `WIDTHS`.

        Beyond the widths that were rounded to it falls as the square of the step does.
        """
        found = {width: rounded.error / max(self.energy, 1e-30) for width, rounded in self.at.items()}
        widest = max(found)
        return {w: found[w] if w in found else found[widest] * 4.0 ** (widest - w) for w in WIDTHS}


def round_all(
    context: PassContext,
    plan: QuantPlan,
    units: Sequence[Unit],
    widths: Sequence[int] = WIDTHS,
    sample: int | None = None,
) -> dict[str, Roundings]:
    """The units' weights at these widths, rounded as the plan says, by share group.

    Rounding to nearest has a step per output channel, without calibration. With `sample`, only that many
    output channels of each member are rounded, evenly spread: enough to tell `relative_errors`, which are
    all that the result is good for then.

    Raises:
        InputError: No clips, or an activation that is not finite.
    """
    groups = [tuple(site for site, _ in unit.entries) for unit in units]
    moments = gather_moments(context, groups, "measure inputs")
    done = itertools.count(1)

    def rounded(unit: Unit) -> Roundings:
        first, _ = unit.entries[0]
        seen = moments[first.share_group]
        weights = [context.model.site_module(site).weight.detach() for site, _ in unit.entries]
        if sample is not None:
            weights, seen = _sampled(weights, seen, sample)
        at = round_group(weights, tuple(widths), seen, plan.site(first.name).rounding)
        energy = sum(_energy(weight, seen) for weight in weights)
        context.progress("round at every width", next(done), len(units))
        return Roundings(tuple(site.name for site, _ in unit.entries), at, energy)

    found = side_by_side(rounded, units, context.threads)
    return {unit.entries[0][0].share_group: one for unit, one in zip(units, found, strict=True)}


def _sampled(
    weights: Sequence[Tensor], moments: InputMoments, channels: int
) -> tuple[list[Tensor], InputMoments]:
    """Some output channels of each weight, by whole groups of channels where there are groups."""
    if moments.groups == 1:
        return [one.flatten(1)[_spread(one.shape[0], channels)] for one in weights], moments
    kept = _spread(moments.groups, math.ceil(channels * moments.groups / weights[0].shape[0]))
    parts = (one.reshape(moments.groups, -1, moments.inputs)[kept] for one in weights)
    return [one.flatten(0, 1) for one in parts], moments.of_groups(kept)


def _spread(available: int, wanted: int) -> Tensor:
    count = min(available, wanted)
    return (2 * torch.arange(count) + 1) * available // (2 * count)


def _energy(weight: Tensor, moments: InputMoments) -> float:
    rows = weight.reshape(moments.groups, -1, moments.inputs)
    return sum(
        float(((rows[group] @ moments.hessian(group)) * rows[group]).sum()) for group in range(moments.groups)
    )


def stored_weights(context: PassContext, unit: Unit) -> dict[str, Tensor]:
    """The members' weights at full precision, by site."""
    return {site.name: context.model.site_module(site).weight.detach() for site, _ in unit.entries}


@torch.no_grad()
def put_weights(module: torch.nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Overwrite the weights of sites of a copy of the model."""
    for name, weight in weights.items():
        target = module.get_submodule(name).weight
        assert isinstance(target, Tensor)
        target.copy_(weight)
