"""The table of what can be loaded. A family is one file that fills in `FAMILIES`, and one name here."""

from __future__ import annotations

from bitvox.compiler.frontend import (
    data2vec,
    hubert,
    moonshine,
    parakeet,
    spectrogram,
    wav2vec2,
    wav2vec2_bert,
    wav2vec2_conformer,
    wavlm,
    whisper,
)
from bitvox.compiler.frontend.family import Family

_FILES = (
    wav2vec2,
    hubert,
    wavlm,
    data2vec,
    wav2vec2_conformer,
    wav2vec2_bert,
    parakeet,
    whisper,
    moonshine,
    spectrogram,
)

FAMILIES: dict[str, Family] = {family.architecture: family for file in _FILES for family in file.FAMILIES}


def supported() -> str:
    """The supported architectures, for messages."""
    return ", ".join(sorted(FAMILIES))
