"""Costs measured again where they will be paid: around the widths that they led to.

A share group that is quantised alone costs something else than the same group among others that are quantised
too; the nearer a model is to falling apart, the more so.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from bitvox.compiler.passes.allocate_exact import AllocateExactPass
from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.divergence import Divergence
from bitvox.compiler.passes.group_roundings import Roundings, put_weights, round_all
from bitvox.compiler.passes.measure_costs import BLANK_WEIGHT, SECONDS, name_of, with_costs
from bitvox.compiler.passes.plan import WIDTHS, QuantPlan
from bitvox.compiler.passes.units import Unit, units_of
from bitvox.compiler.passes.verify import Fact
from bitvox.errors import InputError


@dataclass(frozen=True)
class RefineCostsPass:
    """Costs around the widths that the plan's costs lead to, measured up to `rounds` times.

    A round allocates, then measures the divergence of the whole plan and of every plan that differs from it
    by one bit of one share group: the differences are the new costs. It ends early when new widths are no
    better than those before; the costs that it leaves are those around the best widths that it met. The
    plan's method says how far sums of costs can be trusted: `realised`, the divergence of the first
    allocation, where `predicted` was the sum of its costs, and `refined`, that of the last.

    For costs that are divergences.
    """

    budget: int
    rounds: int = 2

    name: ClassVar[str] = "refine-costs"
    counts_bytes: ClassVar[bool] = True
    requires: ClassVar[frozenset[Fact]] = frozenset({"costs"})
    ensures: ClassVar[frozenset[Fact]] = frozenset({"costs"})

    def __post_init__(self) -> None:
        if not 1 <= self.rounds <= 3:
            raise InputError(f"rounds {self.rounds}: use 1 to 3")

    @torch.inference_mode()
    def run(self, context: PassContext, plan: QuantPlan) -> QuantPlan:
        """The plan with costs around its best widths; RequestError as `AllocateExactPass`."""
        units = units_of(context, plan, "true")
        allocate = AllocateExactPass(self.budget)
        candidate = allocate.run(context, plan)
        predicted = sum(candidate.site(unit.entries[0][0].name).score or 0.0 for unit in units)
        trial = _Trial(context, units, round_all(context, plan, units), self.rounds)
        first = least = trial.realised(candidate)
        for _ in range(self.rounds):
            plan = with_costs(plan, units, trial.around(candidate, least))
            candidate = allocate.run(context, plan)
            found = trial.realised(candidate)
            if found >= least:
                break
            least = found
        notes = {"predicted": predicted, "realised": first, "refined": least}
        return plan.noting(**{name: f"{value:.4g}" for name, value in notes.items()})


class _Trial:
    """A copy of the model whose groups can take any width."""

    def __init__(
        self, context: PassContext, units: list[Unit], roundings: Mapping[str, Roundings], rounds: int
    ) -> None:
        self._context, self._units, self._roundings = context, units, roundings
        self._divergence = Divergence(context, SECONDS, BLANK_WEIGHT)
        self._module = copy.deepcopy(context.model.module)
        self._done, self._total = 0, rounds * len(units)

    def realised(self, plan: QuantPlan) -> float:
        """Divergence of the model with the plan's widths, which it keeps."""
        for unit in self._units:
            self._put(unit, plan.site(unit.entries[0][0].name).bits)
        return self._divergence.of(self._module)

    def around(self, plan: QuantPlan, realised: float) -> dict[str, dict[int, float]]:
        """What each width of each group adds to the divergence, the others as the plan has them.

        A bit more and a bit less are measured; beyond, the plan's own costs say how it goes on.
        """
        self.realised(plan)
        found = {}
        for unit in self._units:
            found[name_of(unit)] = self._row(unit, plan, realised)
            self._done += 1
            self._context.progress("refine costs", self._done, self._total)
        return found

    def _row(self, unit: Unit, plan: QuantPlan, realised: float) -> dict[int, float]:
        entry = plan.site(unit.entries[0][0].name)
        assert entry.bits is not None and entry.costs is not None
        before, row = dict(zip(WIDTHS, entry.costs, strict=True)), {entry.bits: realised}
        for other in (entry.bits - 1, entry.bits + 1):
            if other in WIDTHS:
                self._put(unit, other)
                row[other] = self._divergence.of(self._module)
        self._put(unit, entry.bits)
        low, high = min(row), max(row)
        for other in WIDTHS:
            nearest = min(max(other, low), high)
            row[other] = row[nearest] + before[other] - before[nearest]
        least = min(row.values())
        return {other: row[other] - least for other in WIDTHS}

    def _put(self, unit: Unit, width: int | None) -> None:
        assert width is not None
        put_weights(self._module, self._roundings[name_of(unit)].weights(width))
