"""Widths of least cost under a budget: a multiple-choice knapsack, solved to a certificate of optimality."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.plan import WIDTHS, QuantPlan, SitePlan, rounded
from bitvox.compiler.passes.units import Unit, rest_bytes, too_small, units_of
from bitvox.compiler.passes.verify import Fact
from bitvox.errors import InputError, RequestError

# Costs are scaled so that the solver's absolute tolerance, 1e-6, is far below any difference that matters.
_LARGEST_COST = 1e4


@dataclass(frozen=True)
class Choice:
    """A solution: the width of each unit, its cost, and how far from the least cost it can be at most."""

    widths: tuple[int, ...]
    cost: float
    gap: float


def least_cost(costs: Sequence[Mapping[int, float]], sizes: Sequence[Mapping[int, int]], room: int) -> Choice:
    """One width for each unit, of least total cost with at most `room` bytes (HiGHS, by branch and bound).

    Args:
        costs: Of each unit, by the widths that it may have.
        sizes: Bytes of each unit at those widths.
        room: Bytes for all units; at least the sum of their smallest sizes.
    """
    # The solver takes a number within 1e-6 of a whole one for whole, which in bytes may be a few too many.
    bound, left = -math.inf, room
    while True:
        widths, below = _solve(costs, sizes, left)
        bound = max(bound, below) if left == room else bound
        excess = sum(size[width] for size, width in zip(sizes, widths, strict=True)) - room
        if excess <= 0:
            break
        left -= excess
    total = sum(cost[width] for cost, width in zip(costs, widths, strict=True))
    return Choice(widths, total, max(0.0, (total - bound) / max(total, 1e-300)))


def _solve(
    costs: Sequence[Mapping[int, float]], sizes: Sequence[Mapping[int, int]], room: int
) -> tuple[tuple[int, ...], float]:
    """Widths, and a bound that no choice is below."""
    options = [(unit, width) for unit, row in enumerate(costs) for width in row]
    cost = np.array([costs[unit][width] for unit, width in options])
    size = np.array([sizes[unit][width] for unit, width in options], dtype=np.float64)
    one_each = np.zeros((len(costs), len(options)))
    one_each[[unit for unit, _ in options], np.arange(len(options))] = 1
    scale = _LARGEST_COST / max(float(cost.max()), 1e-300)
    with silent_stdout():
        found = milp(
            cost * scale,
            integrality=np.ones(len(options)),
            bounds=Bounds(0, 1),
            constraints=[
                LinearConstraint(one_each, 1, 1),
                LinearConstraint(size[None], -np.inf, room + 0.5),
            ],
            options={"mip_rel_gap": 0.0},
        )
    if found.x is None:
        raise ValueError(f"no choice fits {room} bytes: {found.message}")
    chosen = tuple(width for (_, width), taken in zip(options, found.x, strict=True) if taken > 0.5)
    return chosen, found.mip_dual_bound / scale


@contextmanager
def silent_stdout() -> Iterator[None]:
    """Nothing that native code prints reaches stdout: HiGHS has remarks that no option of it keeps back."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


@dataclass(frozen=True)
class AllocateExactPass:
    """Widths whose `costs` add up to the least that any plan within the budget has.

    Floors hold as everywhere. The budget bounds the true bytes. The plan's method says the total that is
    expected and `gap`, the share of it by which a better plan could differ at most by the solver's bound.
    """

    budget: int

    name: ClassVar[str] = "allocate-exact"
    counts_bytes: ClassVar[bool] = True
    requires: ClassVar[frozenset[Fact]] = frozenset({"costs"})
    ensures: ClassVar[frozenset[Fact]] = frozenset({"widths"})

    def __post_init__(self) -> None:
        if self.budget <= 0:
            raise InputError(f"budget {self.budget}: use a positive number of bytes")

    def run(self, context: PassContext, plan: QuantPlan) -> QuantPlan:
        """The plan with widths; RequestError naming the smallest possible budget if none fits."""
        units = units_of(context, plan, "true")
        rest = rest_bytes(context, plan, "true")
        costs = [unit_costs(unit) for unit in units]
        smallest = rest + sum(
            min(unit.sizes[width] for width in row) for unit, row in zip(units, costs, strict=True)
        )
        if self.budget < smallest:
            raise RequestError(too_small(self.budget, smallest, "true"))
        choice = least_cost(costs, [unit.sizes for unit in units], self.budget - rest)
        decided: dict[str, SitePlan] = {}
        for unit, row, width in zip(units, costs, choice.widths, strict=True):
            for site, entry in unit.entries:
                size = context.costs.site(site, width, entry.granularity, entry.activations)
                decided[site.name] = entry.replace(
                    bits=width,
                    clip=1.0,
                    score=rounded(row[width]),
                    reason=_reason(row, width),
                    stored_bytes=size,
                )
        return plan.replace(
            budget=self.budget,
            fixed_bytes=context.costs.fixed,
            accounting="true",
            sites=tuple(decided.get(entry.site, entry) for entry in plan.sites),
        ).noting(allocation="exact", expected=f"{choice.cost:.4g}", gap=f"{choice.gap:.1g}")


def unit_costs(unit: Unit) -> dict[int, float]:
    """Cost of a unit at each width from its floor on."""
    _, entry = unit.entries[0]
    assert entry.costs is not None
    return {width: cost for width, cost in zip(WIDTHS, entry.costs, strict=True) if width >= unit.floor}


def _reason(row: Mapping[int, float], width: int) -> str:
    less, more = row.get(width - 1), row.get(width + 1)
    parts = [f"costs {row[width]:.3g}"]
    if less is not None:
        parts.append(f"{less:.3g} with a bit less")
    if more is not None:
        parts.append(f"{more:.3g} with a bit more")
    return ", ".join(parts)
