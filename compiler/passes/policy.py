"""What each role in the network may be reduced to, tier by tier: a table, so that the plan can show it."""

from __future__ import annotations

from dataclasses import dataclass

from bitvox.compiler.frontend.model import Role
from bitvox.compiler.passes.plan import Activations, Granularity, Tier


@dataclass(frozen=True)
class RolePolicy:
    """What a tier grants to a role.

    Attributes:
        floor: Smallest width in bits, or None for full precision whatever the budget.
        granularity: One weight scale per tensor or per output channel.
        reason: Why, in words; shown in the plan.
        instead_of_static: How inputs are quantised where calibrated ranges are asked for.
    """

    floor: int | None
    granularity: Granularity
    reason: str
    instead_of_static: Activations = "static"


POLICIES: dict[Tier, dict[Role, RolePolicy]] = {
    "default": {
        "input_conv": RolePolicy(None, "channel", "reads the raw waveform: few weights, faster in float"),
        "conv": RolePolicy(2, "channel", "feature extractor"),
        "positional_conv": RolePolicy(2, "channel", "positional convolution"),
        "linear": RolePolicy(2, "channel", "encoder"),
        "head": RolePolicy(6, "channel", "writes the logits: few weights, direct effect on the text"),
        # A step multiplies one row, whose own range is free to find and no clip has seen. Floors as measured
        # on AN4 dev with reference-whisper, the rest at 8 bits, in points of word error rate above float32:
        # decoder at 3 bits +2.5 [1.0, 4.0], at 2 +10.2 [8.9, 11.2]; embedding at 4 +0.5 [-1.0, 2.8], at 3
        # -0.2 [-3.1, 2.3], at 2 +2.2 [-3.7, 6.1].
        "decoder": RolePolicy(3, "channel", "decoder: what it writes wrong it reads again", "dynamic"),
        "embedding": RolePolicy(3, "channel", "reads every token and writes the logits", "dynamic"),
    },
    # As the authors' code runs: the head and the positional convolution stay as they are, linear weights have
    # one scale. It walks the first convolution down with the rest; the product keeps it at 8 bits.
    "paper": {
        "input_conv": RolePolicy(8, "channel", "reads the raw waveform"),
        "conv": RolePolicy(2, "channel", "feature extractor"),
        "positional_conv": RolePolicy(None, "channel", "skipped by the paper's code"),
        "linear": RolePolicy(2, "tensor", "encoder"),
        "head": RolePolicy(None, "tensor", "skipped by the paper's code"),
        "decoder": RolePolicy(2, "tensor", "decoder", "dynamic"),
        "embedding": RolePolicy(None, "tensor", "skipped by the paper's code"),
    },
}
