"""What running a written bundle showed, in the same terms for every target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bitvox.errors import RequestError


@dataclass(frozen=True)
class Parity:
    """Difference of every site's output from the quantised torch model, on real audio.

    Attributes:
        difference: Relative difference of every site's output, in execution order.
        allowed: The largest that is accepted, by site.
        shipped: Relative difference of the file's own logits from those of the copy whose sites were read.
        shipped_allowed: The largest of these that is accepted.
    """

    difference: Mapping[str, float]
    allowed: Mapping[str, float]
    shipped: float
    shipped_allowed: float

    @property
    def worst(self) -> tuple[str, float]:
        """The site that differs most, and by how much."""
        name = max(self.difference, key=lambda site: self.difference[site])
        return name, self.difference[name]

    def check(self) -> None:
        """Raise RequestError that names the first site outside the tolerance."""
        for name, difference in self.difference.items():
            if not difference <= self.allowed[name]:
                raise RequestError(
                    f"site '{name}': its output in the runtime differs from the quantised model by "
                    f"{difference:.1e} of its size (allowed {self.allowed[name]:.0e})"
                )
        if not self.shipped <= self.shipped_allowed:
            raise RequestError(
                f"logits: the file's own differ by {self.shipped:.1e} from those of the compared copy "
                f"(allowed {self.shipped_allowed:.0e}); the runtime optimises the two differently"
            )


@dataclass(frozen=True)
class ExportReport:
    """What was found when the written files were run.

    Attributes:
        kernels: Site -> operator that the runtime reached.
        float_sites: Sites that were meant to compute in integers and run in float.
        parity: Difference of every site from the quantised torch model.
    """

    kernels: dict[str, str]
    float_sites: tuple[str, ...]
    parity: Parity
