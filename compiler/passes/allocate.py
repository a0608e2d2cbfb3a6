"""Widths for every site under a budget: myQASR's walk, its orders, and the baselines it is compared with."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.plan import WIDTHS, Accounting, QuantPlan, SitePlan
from bitvox.compiler.passes.units import Unit, rest_bytes, too_small, units_of
from bitvox.compiler.passes.verify import Fact
from bitvox.errors import InputError, RequestError

Order = Literal["ascending", "descending", "shuffled", "min-max", "uniform"]

_TOP = WIDTHS[-1]


@dataclass(frozen=True)
class AllocateMyQASRPass:
    """myQASR's allocation (arXiv 2307.12659, Algorithm 1) to a ceiling in bytes.

    All units start at 8 bits, the widest that is stored (the paper's walk from 32 passes through the same
    states). Round after round every unit loses one bit, in the order of the scores, until the size fits:
    widths differ by at most one, apart from floors. A unit is a share group (q/k/v read one input and share a
    width); its score is the lower median of its members'.

    Orders:
        ascending: Lowest score first, as printed.
        descending: Highest score first, as the authors' code runs; also the "reversed" curve of the figures.
        shuffled: A random order drawn from `seed`.
        min-max: Scores mapped linearly to 2..8 bits (the scores, not their ranks); that profile, cut off at
            8, is lowered bit by bit in ascending order until the size fits.
        uniform: One width for all; whole rounds, so that up to a round of the budget stays unused.

    Accounting: `true` bounds the bytes of the bundle as `context.costs` counts them; `paper` bounds the
        figure's formula (`bytes.paper_bytes`, budget in bytes too).

    The first state of the walk that fits is taken. So the size is within one unit step below the budget
    (except `uniform`, and a budget above the size at 8 bits), and a larger budget never gives a smaller plan.
    """

    budget: int
    order: Order = "ascending"
    accounting: Accounting = "true"
    seed: int = 0

    name: ClassVar[str] = "allocate-myqasr"
    counts_bytes: ClassVar[bool] = True
    ensures: ClassVar[frozenset[Fact]] = frozenset({"widths"})

    def __post_init__(self) -> None:
        if self.order not in get_args(Order):
            raise InputError(f"order {self.order}: unknown; use one of {', '.join(get_args(Order))}")
        if self.budget <= 0:
            raise InputError(f"budget {self.budget}: use a positive number of bytes")

    @property
    def requires(self) -> frozenset[Fact]:
        """Scores, where the order looks at them."""
        scored = self.order in ("ascending", "descending", "min-max")
        return frozenset({"scores"}) if scored else frozenset()

    def run(self, context: PassContext, plan: QuantPlan) -> QuantPlan:
        """The plan with widths; RequestError naming the smallest possible budget if none fits."""
        units = units_of(context, plan, self.accounting)
        rest = rest_bytes(context, plan, self.accounting)
        sizes: list[int] = []
        for widths in self._states(units):
            sizes.append(rest + sum(unit.sizes[width] for unit, width in zip(units, widths, strict=True)))
            if sizes[-1] <= self.budget:
                return self._write(context, plan, units, widths)
        raise RequestError(too_small(self.budget, min(sizes), self.accounting))

    def _states(self, units: Sequence[Unit]) -> Iterator[tuple[int, ...]]:
        """Widths of the units, state after state of the walk."""
        if self.order == "uniform":
            return (tuple(max(width, unit.floor) for unit in units) for width in reversed(WIDTHS))
        levels = _min_max_levels(units) if self.order == "min-max" else [_TOP] * len(units)
        return _walk(levels, [unit.floor for unit in units], self._ranking(units))

    def _ranking(self, units: Sequence[Unit]) -> list[int]:
        ranking = list(range(len(units)))
        if self.order == "shuffled":
            random.Random(self.seed).shuffle(ranking)
            return ranking
        sign = -1 if self.order == "descending" else 1
        return sorted(ranking, key=lambda i: sign * units[i].score)

    def _write(
        self, context: PassContext, plan: QuantPlan, units: Sequence[Unit], widths: Sequence[int]
    ) -> QuantPlan:
        ranking = self._ranking(units)
        decided: dict[str, SitePlan] = {}
        for index, (unit, width) in enumerate(zip(units, widths, strict=True)):
            reason = self._reason(unit, width, ranking.index(index) + 1, len(units))
            for site, entry in unit.entries:
                size = context.costs.site(site, width, entry.granularity, entry.activations)
                decided[site.name] = entry.replace(bits=width, clip=1.0, reason=reason, stored_bytes=size)
        options = {"seed": self.seed} if self.order == "shuffled" else {}
        return plan.replace(
            budget=self.budget,
            fixed_bytes=context.costs.fixed,
            accounting=self.accounting,
            sites=tuple(decided.get(entry.site, entry) for entry in plan.sites),
        ).noting(order=self.order, **options)

    def _reason(self, unit: Unit, width: int, rank: int, count: int) -> str:
        if width == unit.floor and unit.floor > WIDTHS[0]:
            return f"at its floor of {width} bits: {unit.floor_reason}"
        if self.order == "uniform":
            return "one width for all"
        if self.order == "min-max":
            return f"width by score, linear from lowest to highest; number {rank} of {count} in score"
        return f"number {rank} of {count} to lose a bit, {self.order} order"


def bytes_at_width(context: PassContext, plan: QuantPlan, bits: int, accounting: Accounting = "true") -> int:
    """Size with all units at one width, floors kept: the budget that `uniform` meets with no slack."""
    units = units_of(context, plan, accounting)
    return rest_bytes(context, plan, accounting) + sum(unit.sizes[max(bits, unit.floor)] for unit in units)


def _min_max_levels(units: Sequence[Unit]) -> list[int]:
    """Start of the walk for `min-max`: the profile of 2..8 bits, raised until every unit is at the top."""
    low, high = min(unit.score for unit in units), max(unit.score for unit in units)
    spread = _TOP - WIDTHS[0]
    shares = [(unit.score - low) / (high - low) if high > low else 0.0 for unit in units]
    return [_TOP + round(spread * share) for share in shares]


def _walk(levels: Sequence[int], floors: Sequence[int], ranking: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Widths after each lost bit; levels above the top count as the top, so any profile can be walked."""
    left = list(levels)
    yield tuple(min(level, _TOP) for level in left)
    while any(level > floor for level, floor in zip(left, floors, strict=True)):
        for index in ranking:
            if left[index] > floors[index]:
                left[index] -= 1
                if left[index] < _TOP:
                    yield tuple(min(level, _TOP) for level in left)
