"""What can be compiled, as a table: read from the compiler's own, so that it lists what loads and no more."""

from __future__ import annotations

from bitvox.benchmarks.experiments.tables import table
from bitvox.compiler.frontend.families import FAMILIES

_WRITES = {
    "ctc": "text (CTC)",
    "classifier": "a label of the clip",
    "encoder-decoder": "text (token after token)",
}


def supported_table() -> str:
    """Markdown: one row for every architecture."""
    rows = [(f"`{family.architecture}`", family.reads, _WRITES[family.kind]) for family in FAMILIES.values()]
    return table(("class in config.json", "reads", "writes"), rows)
