"""Models of the default method that differ in what they are rounded for, and in nothing else.

Widths are those that the method finds on generic recordings, once a budget; what a calibration set then says
is in the rounding, where a plan's bytes do not see it. That makes sets comparable at equal bytes and widths,
and a model a matter of seconds. myQASR, whose rounding looks at no recording, allocates by each set anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch

from bitvox.benchmarks.experiments.judge import Judge
from bitvox.compiler.frontend.audio import Clip
from bitvox.compiler.passes.plan import QuantPlan
from bitvox.planning import allocated_plan
from bitvox.progress import no_progress
from bitvox.request import CompileRequest

Method = Literal["auto", "myqasr"]


class FixedWidths:
    """Plans for some budgets; the judge's own calibration clips are the generic recordings."""

    def __init__(self, judge: Judge, base: CompileRequest) -> None:
        self._judge, self._auto = judge, replace(base, method="auto")
        self._ladder = judge.ladder(self._auto)
        self._plans: dict[float, QuantPlan] = {}

    def plan(self, bits: float) -> QuantPlan:
        """The default method's at the bytes of that average, from the generic recordings."""
        if bits not in self._plans:
            budget = self._judge.budget(self._auto, self._ladder, bits)
            request = replace(self._auto, budget=budget)
            self._plans[bits] = allocated_plan(self._judge.voice, request, self._judge.store, no_progress)
        return self._plans[bits]

    def model(
        self,
        method: Method,
        bits: float,
        clips: Sequence[Clip] | None,
        generic: Sequence[Clip] = (),
        own_share: float = 1.0,
    ) -> tuple[QuantPlan, torch.nn.Module]:
        """A model calibrated on clips, mixed with generic ones or alone; None is calibrated on nothing.

        On nothing the default method's weights are rounded to nearest, and myQASR's order is drawn by seed.
        """
        plan = self.plan(bits)
        if method == "myqasr":
            request = replace(self._auto, method="myqasr", budget=plan.budget)
            if clips is None:
                return self._judge.quantised(replace(request, order="shuffled"))
            return self._judge.calibrated_on(clips).quantised(request)
        if clips is None:
            sites = tuple(entry.replace(rounding="nearest") for entry in plan.sites)
            return plan, self._judge.following(plan.replace(sites=sites))
        return plan, self._judge.calibrated_on(clips, generic, own_share).following(plan)
