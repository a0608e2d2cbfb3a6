"""What each share group costs at each width: by four measures, none of which needs a label or a gradient."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, get_args

import torch
from torch import Tensor

from bitvox.compiler.frontend.model import Site
from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.divergence import Divergence
from bitvox.compiler.passes.group_roundings import Roundings, put_weights, round_all, stored_weights
from bitvox.compiler.passes.plan import WIDTHS, Cost, QuantPlan, rounded
from bitvox.compiler.passes.units import Unit, units_of
from bitvox.compiler.passes.verify import Fact
from bitvox.errors import InputError

SECONDS = 24.0
"""Seconds of the clips on which divergences are measured."""

SAMPLED_SECONDS = 48.0
"""Seconds of the clips on which a sample of channels tells relative errors: they differ by less with more."""

BLANK_WEIGHT = 0.1
"""Weight of a CTC frame in which the model is sure of the blank."""

MEASURED = (2, 3, 4, 5)
"""Above these a divergence is too small to tell from the rounding of float32; it falls as the error does."""

_NOISE = 0.1

_Costs = dict[str, dict[int, float]]


@dataclass(frozen=True)
class MeasureCostsPass:
    """Sets `costs` of every quantised site: those of its share group at each width, alone in a float model.

    Costs:
        divergence: KL divergence of the model's own output distribution from full precision, with the group
            at that width rounded as the plan says; one forward pass a group and width up to 5 bits, and from
            there on falling as the error does.
        noise: The group's relative output error at that width times how much the divergence grows with noise
            of a hundredth of the power on its output: one forward pass a group (the linear approximation of
            HIGGS, Malinovskii et al. 2025).
        error: The relative output error alone, tr(d H d^T) over tr(W H W^T).
        median: The square of the median of |output| (myQASR's score, arXiv 2307.12659) times 4^-bits: the
            error that a grid scaled to such outputs would make. Needs scores and no rounding.

    Divergences are measured on the first `seconds` of the clips; relative errors alone on `sample` output
    channels of each site and the first `SAMPLED_SECONDS`.
    """

    cost: Cost = "divergence"
    seed: int = 0
    seconds: float = SECONDS
    sample: int | None = None

    name: ClassVar[str] = "measure-costs"
    counts_bytes: ClassVar[bool] = False
    ensures: ClassVar[frozenset[Fact]] = frozenset({"costs"})

    def __post_init__(self) -> None:
        if self.cost not in get_args(Cost):
            raise InputError(f"cost {self.cost}: unknown; use one of {', '.join(get_args(Cost))}")

    @property
    def requires(self) -> frozenset[Fact]:
        """Scores, for `median`."""
        return frozenset({"scores"}) if self.cost == "median" else frozenset()

    @torch.inference_mode()
    def run(self, context: PassContext, plan: QuantPlan) -> QuantPlan:
        """The plan with costs; InputError without clips or if an activation is not finite."""
        units = units_of(context, plan, None)
        if self.cost == "median":
            found: _Costs = {name_of(unit): _by_median(unit) for unit in units}
        else:
            sample = None if self.cost == "divergence" else self.sample
            heard = context if sample is None else context.beginning(SAMPLED_SECONDS)
            roundings = round_all(heard, plan, units, MEASURED, sample)
            found = self._measured(context, units, roundings)
        return with_costs(plan, units, found).noting(cost=self.cost)

    def _measured(
        self, context: PassContext, units: list[Unit], roundings: Mapping[str, Roundings]
    ) -> _Costs:
        relative = {name: one.relative_errors() for name, one in roundings.items()}
        if self.cost == "error":
            return relative
        divergence = Divergence(context, self.seconds, BLANK_WEIGHT, recalls=True)
        if self.cost == "noise":
            return _by_noise(context, units, relative, divergence, self.seed)
        return _by_divergence(context, units, roundings, divergence)


def name_of(unit: Unit) -> str:
    """Name of the unit's share group."""
    return unit.entries[0][0].share_group


def with_costs(plan: QuantPlan, units: list[Unit], found: Mapping[str, Mapping[int, float]]) -> QuantPlan:
    """The plan with these costs by share group and width on every member, never rising with the width."""
    costs: dict[str, tuple[float, ...]] = {}
    for unit in units:
        row, least = [], float("inf")
        for width in WIDTHS:
            least = min(least, found[name_of(unit)][width])
            row.append(rounded(least))
        costs.update({site.name: tuple(row) for site, _ in unit.entries})
    return plan.replace(
        sites=tuple(entry.replace(costs=costs.get(entry.site, entry.costs)) for entry in plan.sites)
    )


def _by_median(unit: Unit) -> dict[int, float]:
    return {width: unit.score**2 * 4.0**-width for width in WIDTHS}


def _by_divergence(
    context: PassContext, units: list[Unit], roundings: Mapping[str, Roundings], divergence: Divergence
) -> _Costs:
    module = copy.deepcopy(context.model.module)
    found: _Costs = {}
    for number, unit in enumerate(units):
        one = roundings[name_of(unit)]
        row: dict[int, float] = {}
        for width in MEASURED:
            put_weights(module, one.weights(width))
            row[width] = divergence.of_change(module, unit.entries[0][0])
        last, errors = MEASURED[-1], one.relative_errors()
        for width in WIDTHS[len(MEASURED) :]:
            row[width] = row[last] * errors[width] / max(errors[last], 1e-30)
        put_weights(module, stored_weights(context, unit))
        found[name_of(unit)] = row
        context.progress("measure costs", number + 1, len(units))
    return found


def _by_noise(
    context: PassContext, units: list[Unit], relative: _Costs, divergence: Divergence, seed: int
) -> _Costs:
    found: _Costs = {}
    for number, unit in enumerate(units):
        handles = [_add_noise(context, site, seed + number) for site, _ in unit.entries]
        try:
            sensitivity = divergence.of_change(context.model.module, unit.entries[0][0]) / _NOISE**2
        finally:
            for handle in handles:
                handle.remove()
        found[name_of(unit)] = {
            width: sensitivity * error for width, error in relative[name_of(unit)].items()
        }
        context.progress("measure costs", number + 1, len(units))
    return found


def _add_noise(context: PassContext, site: Site, seed: int) -> torch.utils.hooks.RemovableHandle:
    def add(_module: torch.nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        # Of each call its own: excerpts run side by side, in any order.
        generator = torch.Generator().manual_seed(seed)
        power = output.square().mean().sqrt()
        return output + _NOISE * power * torch.randn(output.shape, generator=generator)

    return context.model.site_module(site).register_forward_hook(add)
