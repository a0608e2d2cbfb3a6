"""Sensitivity of every site as how far the model's own output moves when that site alone is quantised."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from bitvox.compiler.frontend.model import Site
from bitvox.compiler.frontend.threads import side_by_side
from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.divergence import excerpts
from bitvox.compiler.passes.group_roundings import put_weights
from bitvox.compiler.passes.plan import QuantPlan, rounded
from bitvox.compiler.passes.quantizer import dequantised_weight
from bitvox.compiler.passes.verify import Fact
from bitvox.errors import InputError

SECONDS = 24.0
"""Seconds of the clips on which distances are measured."""

BITS = 4
"""Width of the one quantised site."""

# Of log-probabilities [frames, outputs] at full precision and changed.
_Distance = Callable[[Tensor, Tensor], float]


def _kl(wanted: Tensor, found: Tensor) -> float:
    return float(functional.kl_div(found, wanted, reduction="sum", log_target=True)) / len(wanted)


def _l1(wanted: Tensor, found: Tensor) -> float:
    return float((wanted.exp() - found.exp()).abs().sum()) / len(wanted)


def _l2(wanted: Tensor, found: Tensor) -> float:
    return float((wanted.exp() - found.exp()).norm(dim=-1).sum()) / len(wanted)


def _frobenius(wanted: Tensor, found: Tensor) -> float:
    return float((wanted.exp() - found.exp()).norm())


DISTANCES: dict[str, _Distance] = {"kl": _kl, "l1": _l1, "l2": _l2, "frobenius": _frobenius}
"""Of two distributions over the outputs: means over frames of KL, sum of absolute differences and Euclidean
distance; and the Frobenius norm of all differences at once."""


@dataclass(frozen=True)
class MeasureDistancePass:
    """Score of a site = `distance` of the model's output distribution with that site alone at 4 bits.

    The alternatives to a statistic of activations that the ablation of arXiv 2307.12659 names. Weights are
    rounded to nearest with the plan's granularity, activations stay as they are; one forward pass a site.
    """

    distance: str

    name: ClassVar[str] = "measure-distance"
    counts_bytes: ClassVar[bool] = False
    requires: ClassVar[frozenset[Fact]] = frozenset()
    ensures: ClassVar[frozenset[Fact]] = frozenset({"scores"})

    def __post_init__(self) -> None:
        if self.distance not in DISTANCES:
            raise InputError(f"distance {self.distance}: unknown; use one of {', '.join(DISTANCES)}")

    @torch.inference_mode()
    def run(self, context: PassContext, plan: QuantPlan) -> QuantPlan:
        """The plan with `score` set on every site, 0 where the plan keeps full precision."""
        inputs = excerpts(context, SECONDS)
        wanted = _outputs(context.model.module, inputs, context.threads)
        module = copy.deepcopy(context.model.module)
        scores: dict[str, float] = {}
        for number, site in enumerate(context.model.sites):
            entry = plan.site(site.name)
            if entry.bits is None:
                scores[site.name] = 0.0
                continue
            weight = context.model.site_module(site).weight.detach()
            put_weights(module, {site.name: dequantised_weight(weight, entry.replace(bits=BITS))})
            found = _outputs(module, inputs, context.threads)
            put_weights(module, {site.name: weight})
            scores[site.name] = self._score(context, site, wanted, found)
            context.progress("measure distances", number + 1, len(context.model.sites))
        sites = tuple(entry.replace(score=scores[entry.site]) for entry in plan.sites)
        return plan.replace(sites=sites).noting(score=self.distance)

    def _score(self, context: PassContext, site: Site, wanted: Tensor, found: Tensor) -> float:
        score = DISTANCES[self.distance](wanted, found)
        if not math.isfinite(score):
            raise InputError(f"{context.model.source}: output is not finite with {site.name} at {BITS} bits")
        return rounded(score)


def _outputs(module: torch.nn.Module, inputs: Sequence[tuple[Tensor, ...]], threads: int) -> Tensor:
    """Log-probabilities [frames, outputs] of all excerpts."""

    @torch.inference_mode()
    def run(one: tuple[Tensor, ...]) -> Tensor:
        return functional.log_softmax(module(*one)[0].double(), dim=-1)

    return torch.cat(side_by_side(run, inputs, threads))
