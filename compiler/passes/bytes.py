"""Counting bytes for planning: true bytes for every method, and the paper's formula beside them."""

from __future__ import annotations

from typing import Protocol

from bitvox.compiler.frontend.model import Site, SpeechModel
from bitvox.compiler.passes.plan import Activations, Granularity, QuantPlan


class ByteCosts(Protocol):
    """What a target charges, measured by its exporter: the true bytes in its files."""

    @property
    def fixed(self) -> int:
        """Bytes of everything that no plan changes."""
        ...

    def site(self, site: Site, bits: int | None, granularity: Granularity, activations: Activations) -> int:
        """Bytes of one site: codes, scales and the graph that reads them."""
        ...


def average_bits(model: SpeechModel, plan: QuantPlan) -> float:
    """Mean width of a weight over the quantised sites; 32 where a plan quantises nothing."""
    quantised = [(model.site(entry.site), entry.bits) for entry in plan.sites if entry.bits is not None]
    weights = sum(site.weights for site, _ in quantised)
    return sum(site.weights * bits for site, bits in quantised) / weights if weights else 32.0


def paper_rest_bytes(model: SpeechModel, plan: QuantPlan) -> int:
    """Bytes that the paper's figure charges beside the quantised weights: every other parameter at 8 bits."""
    wrapped = sum(model.site(entry.site).weights for entry in plan.sites if entry.bits is not None)
    return sum(parameter.numel() for parameter in model.module.parameters()) - wrapped


def paper_bytes(model: SpeechModel, plan: QuantPlan) -> int:
    """Size by the accounting of the paper's figure, in bytes (the figure prints MiB).

    Quantised weights at their width, without scales, and all remaining parameters at 8 bits: the only reading
    that fits the published points (arXiv 2307.12659, uniform 5 to 8 bits at 58.0, 68.7, 79.4, 90.0). No file
    has this size; it serves comparison with the figure alone.
    """
    quantised = ((model.site(entry.site), entry.bits) for entry in plan.sites if entry.bits is not None)
    return paper_rest_bytes(model, plan) + sum((site.weights * bits + 7) // 8 for site, bits in quantised)
