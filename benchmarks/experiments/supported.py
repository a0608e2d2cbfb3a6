"""What can be compiled, for which runtime and at which widths: the table that the tests of families walk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bitvox.benchmarks.experiments.tables import table
from bitvox.compiler.frontend.families import FAMILIES
from bitvox.compiler.passes.plan import WIDTHS, Kernels
from bitvox.request import Target

_WRITES = {
    "ctc": "text (CTC)",
    "classifier": "a label of the clip",
    "encoder-decoder": "text (token after token)",
}


@dataclass(frozen=True)
class Way:
    """A way to run a bundle, and what is compiled for it.

    Attributes:
        name: In the table.
        target, kernels: As `bitvox compile` takes them.
        architectures: Those for which every site is compared at each of `WIDTHS`.
    """

    name: str
    target: Target
    kernels: Kernels
    architectures: tuple[str, ...]


# Lowering takes most of a minute each.
_EXECUTORCH = (
    "Wav2Vec2ForCTC",
    "HubertForCTC",
    "Wav2Vec2BertForCTC",
    "ParakeetForCTC",
    "ASTForAudioClassification",
    "WhisperForConditionalGeneration",
    "MoonshineForConditionalGeneration",
)

WAYS = {
    way.name: way
    for way in (
        Way("onnx", "onnx", "stock", tuple(FAMILIES)),
        Way("onnx, packed", "onnx", "packed", tuple(FAMILIES)),
        Way("executorch", "executorch", "packed", _EXECUTORCH),
    )
}


def supported_table() -> str:
    """Markdown: one row for every architecture."""
    rows = [
        (
            f"`{family.architecture}`",
            family.reads,
            _WRITES[family.kind],
            *(_widths(WIDTHS) if family.architecture in way.architectures else "–" for way in WAYS.values()),
        )
        for family in FAMILIES.values()
    ]
    return table(("class in config.json", "reads", "writes", *WAYS), rows)


def _widths(bits: Sequence[int]) -> str:
    return f"{min(bits)} to {max(bits)} bits"
