"""What a model's bundle takes with every unit at one width: budgets are chosen on this ladder."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from bitvox.compiler.passes.allocate import bytes_at_width
from bitvox.compiler.passes.bytes import average_bits
from bitvox.compiler.passes.plan import WIDTHS, QuantPlan
from bitvox.compiler.passes.policy import POLICIES
from bitvox.exporters.targets import TargetCosts
from bitvox.planning import byte_costs
from bitvox.voice import Voice


@dataclass(frozen=True)
class Ladder:
    """Sizes of one model by width, floors kept.

    Attributes:
        sizes: Width -> bytes of the bundle; `averages`: width -> bits per quantised weight.
        site_step: Most bytes that one bit of one site takes.
        unit_step: Most bytes that one bit of one share group takes: groups lose a bit together.
    """

    sizes: dict[int, int]
    averages: dict[int, float]
    site_step: int
    unit_step: int

    def at_average(self, bits: float) -> tuple[int, float]:
        """Bytes for an average of `bits`, between rungs by straight lines, and the average they stand for.

        That is another one where floors keep the smallest bundle above it.
        """
        bits = min(max(bits, self.averages[WIDTHS[0]]), self.averages[WIDTHS[-1]])
        for lower, upper in itertools.pairwise(WIDTHS):
            low, high = self.averages[lower], self.averages[upper]
            if bits <= high:
                share = (bits - low) / (high - low)
                return round(self.sizes[lower] + share * (self.sizes[upper] - self.sizes[lower])), bits
        return self.sizes[WIDTHS[-1]], bits

    def only(self, width: int) -> int:
        """A budget that a uniform plan of this width meets and the next wider one does not."""
        if width == WIDTHS[-1]:
            return 2 * self.sizes[width]
        return (self.sizes[width] + self.sizes[width + 1]) // 2


def measure_ladder(voice: Voice, widest: QuantPlan) -> Ladder:
    """The ladder of a voice's model; `widest` is a plan with every unit at 8 bits, sized by its files."""
    plain = byte_costs(voice, widest.storage)
    costs = plain.corrected(widest.fixed_bytes - plain.fixed)
    context = voice.context(costs)
    steps = _steps(voice, widest, costs)
    return Ladder(
        sizes={width: bytes_at_width(context, widest, width) for width in WIDTHS},
        averages={width: average_bits(voice.model, _at_width(voice, widest, width)) for width in WIDTHS},
        site_step=max(step for group in steps for step in group),
        unit_step=max(sum(group) for group in steps),
    )


def _steps(voice: Voice, plan: QuantPlan, costs: TargetCosts) -> list[list[int]]:
    """Bytes of the dearest bit of each quantised site, by share group."""
    found = []
    for group in voice.model.share_groups():
        entries = [(site, plan.site(site.name)) for site in group]
        sizes = [
            [costs.site(site, width, entry.granularity, entry.activations) for width in WIDTHS]
            for site, entry in entries
            if entry.bits is not None
        ]
        if sizes:
            found.append([max(b - a for a, b in itertools.pairwise(row)) for row in sizes])
    return found


def _at_width(voice: Voice, plan: QuantPlan, width: int) -> QuantPlan:
    """The plan with every quantised unit at `width`; a unit's floor is the highest of its sites'."""
    widths: dict[str, int] = {}
    for group in voice.model.share_groups():
        sites = [site for site in group if plan.site(site.name).bits is not None]
        floor = max((POLICIES[plan.tier][site.role].floor or 0 for site in sites), default=0)
        widths.update({site.name: max(width, floor) for site in sites})
    return plan.replace(sites=tuple(entry.replace(bits=widths.get(entry.site)) for entry in plan.sites))
