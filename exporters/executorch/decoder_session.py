"""An encoder-decoder in ExecuTorch, which keeps keys and values where it runs; see `cached_graphs`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from bitvox.compiler.frontend.decoding import FloatArray, Tokens
from bitvox.compiler.frontend.graph_decoder import CROSS, ENCODER, STEP
from bitvox.compiler.frontend.session import Array
from bitvox.exporters.executorch.methods import Methods

BEAMS = "beams"

# Method of the program that returns a number: the rows of `beams`.
ROWS = "rows_of_beams"


@dataclass(frozen=True)
class Heard:
    """A window, and what its rows have read.

    Attributes:
        cross: Keys and values of cross-attention, layer by layer.
        read: Tokens [B, t] that each row has read.
        rows: Of each row, the one of the call before that it goes on from; None while `step` runs just one.
    """

    cross: tuple[torch.Tensor, ...]
    read: Tokens
    rows: Tokens | None = None


@dataclass(frozen=True)
class DecoderSession:
    """A loaded program that runs beams by itself (`Session` and `DecoderGraphs`).

    Attributes:
        max_rows: The most rows of a state.
    """

    methods: Methods
    max_rows: int

    @property
    def graphs(self) -> tuple[str, ...]:
        """Names of the graphs."""
        return (ENCODER, CROSS, STEP)

    def call(self, graph: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Hidden states of features, or keys and values of cross-attention of hidden states, by name.

        Raises KeyError for any other graph: a step goes on from the one before, which `step` of a state says.
        """
        if graph == ENCODER:
            (hidden,) = self.methods.run(ENCODER, torch.from_numpy(inputs["features"]))
            return {"hidden": hidden.numpy()}
        if graph != CROSS:
            raise KeyError(graph)
        found = self.methods.run(CROSS, torch.from_numpy(inputs["hidden"]))
        kinds = ("key", "value")
        return {f"cross.{kinds[index % 2]}.{index // 2}": one.numpy() for index, one in enumerate(found)}

    def encode(self, features: FloatArray) -> Heard:
        """The state of one window of features: one row that has read no token."""
        (hidden,) = self.methods.run(ENCODER, torch.from_numpy(np.ascontiguousarray(features)[None]))
        cross = tuple(self.methods.run(CROSS, hidden))
        return Heard(cross, np.zeros((1, 0), np.int64))

    def step(self, state: Heard, tokens: Tokens) -> tuple[FloatArray, Heard]:
        """Logits [B, vocabulary] after tokens [B, n], and the state that has read them."""
        if state.rows is not None:
            return self._step_beams(state, tokens)
        read = np.concatenate((state.read, tokens), axis=1)
        (logits,) = self.methods.run(STEP, _tensor(tokens), *_places(state, tokens), *state.cross)
        return logits.numpy(), Heard(state.cross, read)

    def _step_beams(self, state: Heard, tokens: Tokens) -> tuple[FloatArray, Heard]:
        """Token by token; a search reads one at a time."""
        for column in range(tokens.shape[1]):
            assert state.rows is not None
            new = tokens[:, column : column + 1]
            inputs = (_tensor(new), *_places(state, new), _tensor(state.rows), *state.cross)
            (logits,) = self.methods.run(BEAMS, *inputs)
            read = np.concatenate((state.read, new), axis=1)
            state = Heard(state.cross, read, np.arange(len(tokens)))
        return logits.numpy(), state

    def reorder(self, state: Heard, rows: Tokens) -> Heard:
        """The state whose row i goes on from row rows[i]."""
        if state.rows is None:
            if len(rows) == 1:
                return state
            state = self._in_beams(state)
        assert state.rows is not None
        return Heard(state.cross, state.read[rows], state.rows[rows])

    def _in_beams(self, state: Heard) -> Heard:
        """The one row read anew where there are buffers for more: a prompt, of a few tokens."""
        beams = dataclasses.replace(state, read=state.read[:, :0], rows=np.zeros(1, np.int64))
        return self.step(beams, state.read)[1] if state.read.size else beams


def _places(state: Heard, tokens: Tokens) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions of what has been read, and of new tokens [B, n]."""
    before = state.read.shape[1]
    return torch.arange(before), torch.arange(before, before + tokens.shape[1])


def _tensor(values: npt.NDArray[np.int64]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.int64))
