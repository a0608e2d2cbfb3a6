"""What `--effort` means: how the cost of a width is measured."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bitvox.compiler.passes.measure_costs import SECONDS
from bitvox.compiler.passes.plan import Cost
from bitvox.request import CompileRequest, Effort


@dataclass(frozen=True)
class Measurement:
    """What an effort measures widths by.

    Attributes:
        cost: The measure.
        rounds: How often it measures again around the widths that it found. Again does not pay with a minute
            of audio: what it gains on these clips it loses on others.
        seconds: Of the clips, for each divergence.
        sample: Output channels of a site that tell its relative errors; None is all.
    """

    cost: Cost
    rounds: int = 0
    seconds: float = SECONDS
    sample: int | None = None


EFFORTS: dict[Effort, Measurement] = {
    "quick": Measurement("noise", seconds=12.0, sample=64),
    "normal": Measurement("divergence"),
    "max": Measurement("divergence", rounds=2),
}


def measurement(request: CompileRequest) -> Measurement:
    """That of the request's effort, by the cost that it names."""
    usual = EFFORTS[request.effort]
    return replace(usual, cost=request.cost or usual.cost)
