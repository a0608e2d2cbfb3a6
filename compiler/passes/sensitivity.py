"""Sensitivity of every site, from one forward pass over the user's clips."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bitvox.compiler.frontend.model import Site
from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.observers import clip_inputs, watching
from bitvox.compiler.passes.plan import QuantPlan, rounded
from bitvox.compiler.passes.streaming_median import REDUCTIONS
from bitvox.compiler.passes.verify import Fact
from bitvox.errors import InputError


@dataclass(frozen=True)
class MeasureSensitivityPass:
    """Score of a site = `reduction` of its output over all clips, frames and channels at once.

    The median of |output| is the paper's (arXiv 2307.12659, Algorithm 1, step 2); the others of `REDUCTIONS`
    serve its ablation. Memory is bounded: 512 KiB per site for a median, with a relative error of at most
    2^-9.
    """

    reduction: str = "median"

    name: ClassVar[str] = "measure-sensitivity"
    counts_bytes: ClassVar[bool] = False
    requires: ClassVar[frozenset[Fact]] = frozenset()
    ensures: ClassVar[frozenset[Fact]] = frozenset({"scores"})

    def __post_init__(self) -> None:
        if self.reduction not in REDUCTIONS:
            raise InputError(f"reduction {self.reduction}: unknown; use one of {', '.join(REDUCTIONS)}")

    @torch.inference_mode()
    def run(self, context: PassContext, plan: QuantPlan) -> QuantPlan:
        """The plan with `score` set on every site; InputError if an output is not finite."""
        statistics = {site.name: REDUCTIONS[self.reduction]() for site in context.model.sites}

        def visit(site: Site, _values: Tensor, output: Tensor) -> None:
            statistics[site.name].update(output)

        with watching(context.model, context.model.sites, visit):
            for _, inputs in clip_inputs(context, "measure sensitivity"):
                context.model.module(*inputs)
        scores = {name: statistic.value() for name, statistic in statistics.items()}
        for name, score in scores.items():
            if not math.isfinite(score):
                raise InputError(f"{context.model.source}: output of {name} is not finite on the clips")
        sites = tuple(entry.replace(score=rounded(scores[entry.site])) for entry in plan.sites)
        return plan.replace(sites=sites).noting(score=self.reduction)
