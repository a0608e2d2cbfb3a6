"""What passes learn from the user's clips, mixed with what they learn from everyone's.

A user has seconds of audio, and what is estimated from little is noisy: (1 - share) H_generic + share H_user
leans on both, as a regularised covariance does (Ledoit and Wolf 2004). `input_moments` mixes H wherever
weights are rounded (`drift`, what both read on the way); the pass here mixes the numbers of plans. Share 0 is
the generic calibration and share 1 the user's own: `personal_context` leaves one side's clips alone then, and
nothing else runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from bitvox.compiler.frontend.model import FloatArray
from bitvox.compiler.passes.base import Generic, Pass, PassContext, Sequential, WholeStore
from bitvox.compiler.passes.plan import QuantPlan, Range, SitePlan, rounded
from bitvox.compiler.passes.verify import Fact


def personal_context(
    context: PassContext, generic: Sequence[FloatArray], share: float, store: WholeStore | None = None
) -> PassContext:
    """The context of the user's clips, mixed with generic ones at that share, 0 to 1, of the user's.

    At either end what passes find is what they would from that side's clips alone, and is cached as that.
    """
    if share == 1:
        return context.of_user()
    if share == 0:
        return dataclasses.replace(context, clips=tuple(generic), generic=None)
    return dataclasses.replace(context, generic=Generic(tuple(generic), share, store))


@dataclass(frozen=True)
class PersonalisePass:
    """Runs passes on the generic clips and on the user's, and mixes scores, costs, steps and ranges.

    What they find on the generic clips is kept with the clips' own keys: another user, or another share, does
    not find it again. On the user's clips weights are rounded with the mixed H. Without generic clips the
    passes just run.
    """

    passes: tuple[Pass, ...]

    @property
    def name(self) -> str:
        """Of the passes, in order."""
        return "personalise " + " ".join(step.name for step in self.passes)

    @property
    def counts_bytes(self) -> bool:
        """Whether any of them does."""
        return any(step.counts_bytes for step in self.passes)

    @property
    def requires(self) -> frozenset[Fact]:
        """What no pass before it in the row provides."""
        wanted: frozenset[Fact] = frozenset()
        for step in reversed(self.passes):
            wanted = (wanted - step.ensures) | step.requires
        return wanted

    @property
    def ensures(self) -> frozenset[Fact]:
        """What all of them provide."""
        return frozenset().union(*(step.ensures for step in self.passes))

    def run(self, context: PassContext, plan: QuantPlan) -> QuantPlan:
        """The plan with mixed numbers; raises as the passes do."""
        steps, generic = Sequential(self.passes), context.generic
        if generic is None:
            return steps.run(context, plan)
        theirs = steps.run(context.of_generic(), plan, generic.store)
        own = plan
        for step in self.passes:
            own = step.run(context, own)
        return _mixed(theirs, own, generic.share)


def _mixed(generic: QuantPlan, own: QuantPlan, share: float) -> QuantPlan:
    sites = tuple(_site(*pair, share) for pair in zip(generic.sites, own.sites, strict=True))
    return own.replace(sites=sites)


def _site(generic: SitePlan, own: SitePlan, share: float) -> SitePlan:
    def number(first: float | None, second: float | None) -> float | None:
        return None if first is None or second is None else rounded((1 - share) * first + share * second)

    def span(first: Range | None, second: Range | None) -> Range | None:
        if first is None or second is None:
            return None
        low, high = number(first.low, second.low), number(first.high, second.high)
        assert low is not None and high is not None
        return Range(low, high)

    costs = own.costs
    if costs is not None and generic.costs is not None:
        pairs = zip(generic.costs, costs, strict=True)
        costs = tuple(rounded((1 - share) * first + share * second) for first, second in pairs)
    return own.replace(
        score=number(generic.score, own.score),
        costs=costs,
        clip=number(generic.clip, own.clip),
        input_range=span(generic.input_range, own.input_range),
        output_range=span(generic.output_range, own.output_range),
    )
