"""Narrower ranges for integer convolutions: what min-max gives them loses the quiet frames.

A convolutional feature extractor has outputs a hundred times larger in loud frames than in quiet ones, and
the layer norm after it makes them equal again: a grid of 256 codes over the whole range leaves quiet frames a
few codes. Two things are free to give up. Below -4, GELU is zero (|GELU(x)| < 1.3e-4 there), so the low end
of a range that only a GELU reads may stop there. And clipping loud peaks costs less than rounding quiet
frames, up to a factor that is measured: the divergence of the model's own output distribution, without
labels, one forward pass a candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from bitvox.compiler.frontend.model import SpeechModel
from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.divergence import Divergence
from bitvox.compiler.passes.plan import QuantPlan, Range, SitePlan, rounded
from bitvox.compiler.passes.quantizer import QuantisedSite, quantise_module
from bitvox.compiler.passes.verify import Fact

_GELU_IS_ZERO_BELOW = -4.0
_LEAST_GELU = -0.17
_FACTORS = tuple(2.0 ** (-step / 2) for step in range(8))
_NEIGHBOURS = (2.0**-0.5, 2.0**0.5)
_SECONDS = 12


@dataclass(frozen=True)
class FitConvRangesPass:
    """Scales the ranges of static convolutions to where the model's output distribution moves least.

    One factor for all first, from `_FACTORS`, then each site's own, half an octave either way, in execution
    order. The divergence is KL(full precision || quantised) per frame, averaged, on at most 12 s of the
    clips.
    """

    name: ClassVar[str] = "fit-conv-ranges"
    counts_bytes: ClassVar[bool] = True
    requires: ClassVar[frozenset[Fact]] = frozenset({"ranges"})
    ensures: ClassVar[frozenset[Fact]] = frozenset()

    @torch.inference_mode()
    def run(self, context: PassContext, plan: QuantPlan) -> QuantPlan:
        """The plan with narrower input and output ranges on its static convolutions."""
        entries = [plan.site(site.name) for site in context.model.sites if site.operator == "conv1d"]
        entries = [entry for entry in entries if entry.activations == "static" and entry.bits is not None]
        if not entries:
            return plan
        trial = _Trial(context, plan)
        total = len(_FACTORS) + len(_NEIGHBOURS) * len(entries)
        candidates = [[_narrowed(context.model, entry, factor) for entry in entries] for factor in _FACTORS]
        losses = []
        for done, candidate in enumerate(candidates):
            losses.append(trial.divergence(candidate))
            context.progress("fit ranges", done + 1, total)
        best, lowest = candidates[losses.index(min(losses))], min(losses)
        for index in range(len(entries)):
            for step, factor in enumerate(_NEIGHBOURS):
                changed = [*best[:index], _scaled(best[index], factor), *best[index + 1 :]]
                loss = trial.divergence(changed)
                if loss < lowest:
                    best, lowest = changed, loss
                context.progress("fit ranges", len(_FACTORS) + len(_NEIGHBOURS) * index + step + 1, total)
        found = {entry.site: entry for entry in best}
        return plan.replace(sites=tuple(found.get(entry.site, entry) for entry in plan.sites))


class _Trial:
    """A quantised model whose convolution ranges can be changed, beside the full-precision one."""

    def __init__(self, context: PassContext, plan: QuantPlan) -> None:
        self._divergence = Divergence(context, _SECONDS)
        # Weights at 8 bits: the search is for ranges, and rounding of narrow weights would hide them.
        widest = (entry if entry.bits is None else entry.replace(bits=8) for entry in plan.sites)
        self._module = quantise_module(context.model, plan.replace(sites=tuple(widest)))

    def divergence(self, entries: Sequence[SitePlan]) -> float:
        """Mean KL divergence per frame with these entries in place."""
        for entry in entries:
            site = self._module.get_submodule(entry.site)
            assert isinstance(site, QuantisedSite)
            site.plan = entry.replace(bits=8)
        return self._divergence.of(self._module)


def _narrowed(model: SpeechModel, entry: SitePlan, factor: float) -> SitePlan:
    output = entry.output_range
    if output is not None and model.site(entry.site).activation == "gelu":
        entry = entry.replace(output_range=Range(max(output.low, _GELU_IS_ZERO_BELOW), output.high))
    return _scaled(entry, factor)


def _scaled(entry: SitePlan, factor: float) -> SitePlan:
    assert entry.input_range is not None
    scaled = entry.replace(input_range=_scaled_range(entry.input_range, factor, fixed_above=_LEAST_GELU))
    if entry.output_range is None:  # a kernel that writes floats
        return scaled
    output = _scaled_range(entry.output_range, factor, fixed_above=_GELU_IS_ZERO_BELOW)
    return scaled.replace(output_range=output)


def _scaled_range(span: Range, factor: float, fixed_above: float) -> Range:
    """The range times `factor`; a low end that a GELU set stays where it is."""
    low = span.low if span.low >= fixed_above else min(span.low * factor, fixed_above)
    return Range(rounded(low), rounded(span.high * factor))
