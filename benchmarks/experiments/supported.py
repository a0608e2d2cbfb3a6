"""What can be compiled, for which runtime and at which widths.

The tests hold every row to every column: all families have entries in `tests/tiny_families.py` or
`tests/encoder_decoders.py`, and tests/onnx, tests/executorch and tests/decoding walk each of them at each of
`WIDTHS`.
"""

from __future__ import annotations

from bitvox.benchmarks.experiments.tables import table
from bitvox.compiler.frontend.families import FAMILIES
from bitvox.compiler.passes.plan import WIDTHS

_WRITES = {
    "ctc": "text (CTC)",
    "classifier": "a label of the clip",
    "encoder-decoder": "text (token after token)",
}

_WAYS = ("onnx", "onnx, packed", "executorch")


def supported_table() -> str:
    """Markdown: one row for every architecture."""
    widths = f"{min(WIDTHS)} to {max(WIDTHS)} bits"
    rows = [
        (f"`{family.architecture}`", family.reads, _WRITES[family.kind], *(widths for _ in _WAYS))
        for family in FAMILIES.values()
    ]
    return table(("class in config.json", "reads", "writes", *_WAYS), rows)
