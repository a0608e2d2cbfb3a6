"""Search for weight steps and activation steps that keep a site's own output (arXiv 2307.12659, section 3).

Alternating: the weight factor with the activations rounded, then the activation factor with the weights
    rounded, three rounds, 100 factors each. Inputs are those of the full-precision model, so sites are
    independent of each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from bitvox.compiler.frontend.model import Site
from bitvox.compiler.passes.plan import Range, SitePlan, rounded
from bitvox.compiler.passes.quantizer import (
    fake_quantise_activation,
    fake_quantise_dynamic,
    largest_weights,
    restored_weight,
    steps_for,
)

FACTORS = tuple(rounded(0.01 + step * 0.0119) for step in range(100))
"""Multiples of the min-max step that are tried, 0.01 to 1.1881."""

_ROUNDS = 3


@dataclass(frozen=True)
class SiteSample:
    """What a site saw at some frames of the full-precision model.

    Attributes:
        site: The site.
        weight: Its weight [N, ...].
        bias: Its bias [N], if any.
        columns: Its inputs [frames, groups, K].
        gradient: Gradient of the loss at its outputs [frames, N], for `hessian`.
    """

    site: Site
    weight: Tensor
    bias: Tensor | None
    columns: Tensor
    gradient: Tensor | None = None

    def outputs(self, columns: Tensor, weight: Tensor) -> Tensor:
        """Outputs [frames, N] for inputs [frames, groups, K] and a weight [N, ...]."""
        frames, groups, inner = columns.shape
        rows = weight.reshape(groups, -1, inner)
        result = torch.bmm(columns.transpose(0, 1), rows.transpose(1, 2)).transpose(0, 1).reshape(frames, -1)
        return result if self.bias is None else result + self.bias


Objective = Callable[[SiteSample, Tensor, Tensor], float]


def cosine_distance(sample: SiteSample, wanted: Tensor, got: Tensor) -> float:
    """Mean of 1 - cosine of outputs [frames, N]: per frame over features; conv1d per channel over time."""
    axis = 1 if sample.site.operator == "linear" else 0
    return float(1.0 - functional.cosine_similarity(wanted, got, dim=axis).double().mean())


def gradient_weighted_error(sample: SiteSample, wanted: Tensor, got: Tensor) -> float:
    """Sum of (g * (wanted - got))^2: the loss's change by a diagonal Fisher approximation of its Hessian."""
    assert sample.gradient is not None
    return float((sample.gradient * (wanted - got)).square().sum(dtype=torch.float64))


@dataclass(frozen=True)
class SearchResult:
    """Weight factor (`clip`) of each site, and the range of the input that they share."""

    clips: tuple[float, ...]
    input_range: Range | None


@torch.inference_mode()
def search_steps(
    samples: Sequence[SiteSample], plans: Sequence[SitePlan], objective: Objective
) -> SearchResult:
    """Best factors for sites that read one input, from the min-max range in their plans.

    The min-max step itself (factor 1) stays where no factor beats it. Only `static` activations have a step
    to search; with the others one round settles the weights.
    """
    search = _Search(samples, plans, objective)
    for number in range(_ROUNDS):
        # Either search would only repeat itself once the other one has changed nothing.
        settled = not search.improve_weights() and number > 0
        if settled or plans[0].activations != "static" or not search.improve_range():
            break
    return SearchResult(tuple(search.clips), search.range_at(search.factor))


class _Search:
    def __init__(
        self, samples: Sequence[SiteSample], plans: Sequence[SitePlan], objective: Objective
    ) -> None:
        self.samples, self.plans, self.objective = samples, plans, objective
        self.wanted = [sample.outputs(sample.columns, sample.weight) for sample in samples]
        self.largest = [
            largest_weights(sample.weight, plan.granularity)
            for sample, plan in zip(samples, plans, strict=True)
        ]
        self.clips = [1.0] * len(samples)
        self.factor = 1.0

    def range_at(self, factor: float) -> Range | None:
        base = self.plans[0].input_range
        if self.plans[0].activations != "static" or base is None:
            return None
        return Range(rounded(base.low * factor), rounded(base.high * factor))

    def improve_weights(self) -> bool:
        """Best weight factor of each site at the present range; whether any changed."""
        before = list(self.clips)
        for index, sample in enumerate(self.samples):
            inputs = self._rounded_inputs(sample, self.factor)

            def error(clip: float, index: int = index, inputs: Tensor = inputs) -> float:
                return self._error(index, inputs, self._weight(index, clip))

            self.clips[index] = _best(self.clips[index], error)
        return self.clips != before

    def improve_range(self) -> bool:
        """Best range factor at the present weights, all sites taken together; whether it changed."""
        before = self.factor
        weights = [self._weight(index, clip) for index, clip in enumerate(self.clips)]

        def error(factor: float) -> float:
            inputs = self._rounded_inputs(self.samples[0], factor)
            return sum(self._error(index, inputs, weight) for index, weight in enumerate(weights))

        self.factor = _best(self.factor, error)
        return self.factor != before

    def _weight(self, index: int, clip: float) -> Tensor:
        bits = self.plans[index].bits
        assert bits is not None
        return restored_weight(self.samples[index].weight, steps_for(self.largest[index], bits, clip), bits)

    def _error(self, index: int, inputs: Tensor, weight: Tensor) -> float:
        sample = self.samples[index]
        return self.objective(sample, self.wanted[index], sample.outputs(inputs, weight))

    def _rounded_inputs(self, sample: SiteSample, factor: float) -> Tensor:
        if self.plans[0].activations == "dynamic":
            return fake_quantise_dynamic(sample.columns)
        span = self.range_at(factor)
        return sample.columns if span is None else fake_quantise_activation(sample.columns, span)


def _best(incumbent: float, error: Callable[[float], float]) -> float:
    best, least = incumbent, error(incumbent)
    for factor in FACTORS:
        found = error(factor)
        if found < least:
            best, least = factor, found
    return best
