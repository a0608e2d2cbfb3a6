"""The table of what can be loaded. A family is one file that fills in a `Family`, and one line here."""

from __future__ import annotations

from bitvox.compiler.frontend import wav2vec2
from bitvox.compiler.frontend.family import Family

FAMILIES: dict[str, Family] = {family.architecture: family for family in (wav2vec2.FAMILY,)}


def supported() -> str:
    """The supported architectures, for messages."""
    return ", ".join(sorted(FAMILIES))
