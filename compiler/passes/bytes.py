"""The one function that counts bytes for planning, for every method."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from bitvox.compiler.frontend.model import Site
from bitvox.compiler.passes.plan import Activations, Granularity, SitePlan


class ByteCosts(Protocol):
    """What a target charges, measured by its exporter: the true bytes in its files."""

    @property
    def fixed(self) -> int:
        """Bytes of everything that no plan changes."""
        ...

    def site(self, site: Site, bits: int | None, granularity: Granularity, activations: Activations) -> int:
        """Bytes of one site: codes, scales and the graph that reads them."""
        ...


def model_bytes(entries: Iterable[tuple[Site, SitePlan]], costs: ByteCosts) -> int:
    """Size of the bundle that these decisions lead to, in bytes."""
    return costs.fixed + sum(
        costs.site(site, plan.bits, plan.granularity, plan.activations) for site, plan in entries
    )
