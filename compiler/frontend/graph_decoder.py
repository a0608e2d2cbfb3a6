"""An encoder-decoder by its graphs, whatever runs them. NumPy alone.

    encoder   features [1, mels, frames]                     -> hidden
    cross     hidden                                         -> cross.key.i, cross.value.i of every layer
    step      tokens [B, n], past.key.i, past.value.i, cross -> logits [B, vocabulary], key.i, value.i

Keys and values of cross-attention are computed once for a window; those of self-attention come out of a step
one token longer than they went in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitvox.compiler.frontend.decoding import DecoderGraphs, FloatArray, Tokens
from bitvox.compiler.frontend.session import Array, Session

ENCODER, CROSS, STEP = "encoder", "cross", "step"
MAX_ROWS = 16

PAST = "past."


@dataclass(frozen=True)
class Caches:
    """What a step reads beside tokens, by input of its graph; `past` has a row for each hypothesis."""

    cross: Mapping[str, Array]
    past: Mapping[str, Array]


def decoder_of(session: Session) -> DecoderGraphs[Any]:
    """How to decode with a session: by its graphs, unless it keeps the caches of a decoding itself."""
    return session if isinstance(session, DecoderGraphs) else GraphDecoder(session)


@dataclass(frozen=True)
class GraphDecoder:
    """`DecoderGraphs` of a session that has the three graphs."""

    session: Session

    @property
    def max_rows(self) -> int:
        """The most rows that a state can have."""
        return MAX_ROWS

    def encode(self, features: FloatArray) -> Caches:
        """The state of one window of features [mels, frames]: one row that has read no token."""
        hidden = self.session.call(ENCODER, {"features": features[None]})
        cross = self.session.call(CROSS, {"hidden": hidden["hidden"]})
        past = {}
        for name, values in cross.items():
            layer = name.rpartition(".")[2]
            if name.startswith("cross.value"):  # [1, heads, positions, width]: as a step has them
                nothing = values[:, :, :0].astype(np.float32)
                past[f"{PAST}key.{layer}"] = past[f"{PAST}value.{layer}"] = nothing
        return Caches(cross, past)

    def step(self, state: Caches, tokens: Tokens) -> tuple[FloatArray, Caches]:
        """Logits [B, vocabulary] after tokens [B, n], and the state that has read them."""
        outputs = self.session.call(STEP, {"tokens": tokens, **state.past, **state.cross})
        logits = outputs.pop("logits")
        return logits, Caches(state.cross, {PAST + name: values for name, values in outputs.items()})

    def reorder(self, state: Caches, rows: Tokens) -> Caches:
        """The state whose row i goes on from row rows[i]."""
        return Caches(
            state.cross, {name: np.take(values, rows, axis=0) for name, values in state.past.items()}
        )
