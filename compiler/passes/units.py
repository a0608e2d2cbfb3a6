"""What an allocation decides about at once: share groups, with their sizes at every width."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bitvox.compiler.frontend.model import Site
from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.bytes import paper_rest_bytes
from bitvox.compiler.passes.plan import WIDTHS, Accounting, QuantPlan, SitePlan
from bitvox.compiler.passes.policy import POLICIES
from bitvox.sizes import format_size


@dataclass(frozen=True)
class Unit:
    """The quantised sites of one share group.

    Attributes:
        entries: Members with their plans.
        score: Lower median of the members' scores, 0 where none was measured.
        floor: Smallest width.
        floor_reason: Whose floor that is.
        sizes: Bytes of the members at each width, by the accounting in force; empty where there is none.
    """

    entries: tuple[tuple[Site, SitePlan], ...]
    score: float
    floor: int
    floor_reason: str
    sizes: dict[int, int]


def units_of(context: PassContext, plan: QuantPlan, accounting: Accounting | None) -> list[Unit]:
    """Units in execution order; sites at full precision in the plan belong to none.

    Without an accounting they have no sizes.
    """
    units = []
    for group in context.model.share_groups():
        entries = tuple(
            (site, plan.site(site.name)) for site in group if plan.site(site.name).bits is not None
        )
        if not entries:
            continue
        scores = [entry.score for _, entry in entries if entry.score is not None]
        policies = [POLICIES[plan.tier][site.role] for site, _ in entries]
        highest = max(policies, key=lambda policy: policy.floor or 0)
        units.append(
            Unit(
                entries=entries,
                score=statistics.median_low(scores) if scores else 0.0,
                floor=highest.floor or WIDTHS[0],
                floor_reason=highest.reason,
                sizes={width: _size(context, entries, width, accounting) for width in WIDTHS}
                if accounting
                else {},
            )
        )
    return units


def _size(
    context: PassContext, entries: Sequence[tuple[Site, SitePlan]], width: int, accounting: Accounting
) -> int:
    if accounting == "paper":
        return sum((site.weights * width + 7) // 8 for site, _ in entries)
    return sum(
        context.costs.site(site, width, entry.granularity, entry.activations) for site, entry in entries
    )


def rest_bytes(context: PassContext, plan: QuantPlan, accounting: Accounting) -> int:
    """Bytes that no unit's width changes."""
    if accounting == "paper":
        return paper_rest_bytes(context.model, plan)
    floats = ((context.model.site(entry.site), entry) for entry in plan.sites if entry.bits is None)
    return context.costs.fixed + sum(
        context.costs.site(site, None, entry.granularity, entry.activations) for site, entry in floats
    )


def too_small(budget: int, smallest: int, accounting: Accounting) -> str:
    """The error for a budget below the smallest bundle."""
    counted = "" if accounting == "true" else " by the paper's accounting"
    return (
        f"budget {format_size(budget)}: the smallest bundle of this model takes {smallest} bytes "
        f"({format_size(smallest)}){counted}"
    )
