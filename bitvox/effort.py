"""What `--effort` means: how much audio is learnt from, and how the cost of a width is measured."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bitvox.compiler.passes.measure_costs import SECONDS
from bitvox.compiler.passes.plan import Cost
from bitvox.request import CompileRequest, Effort


@dataclass(frozen=True)
class Measurement:
    """What an effort learns from, and measures widths by.

    Attributes:
        audio: Seconds of the clips that calibrate, at most. Rounding that keeps a site's output fits what it
            has heard: a minute and a half of AN4 leaves 1.6 times the divergence on other speakers that ten
            minutes do.
        cost: The measure.
        rounds: How often it measures again around the widths that it found. Again does not pay with a minute
            of audio: what it gains on these clips it loses on others.
        seconds: Of the clips, for each divergence.
        sample: Output channels of a site that tell its relative errors; None is all.
    """

    cost: Cost
    audio: float = 640.0
    rounds: int = 0
    seconds: float = SECONDS
    sample: int | None = None


EFFORTS: dict[Effort, Measurement] = {
    "quick": Measurement("noise", audio=96.0, seconds=12.0, sample=64),
    "normal": Measurement("divergence"),
    "max": Measurement("divergence", rounds=2),
}


def measurement(request: CompileRequest) -> Measurement:
    """That of the request's effort, by the cost that it names."""
    usual = EFFORTS[request.effort]
    return replace(usual, cost=request.cost or usual.cost)
