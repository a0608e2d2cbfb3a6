"""What an encoder-decoder's graphs offer to a search for text, what may be asked of it, and what it finds.

NumPy alone: the graphs are torch's, ONNX Runtime's or ExecuTorch's behind one protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from bitvox.errors import InputError

FloatArray = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int64]
Task = Literal["transcribe", "translate"]

State = TypeVar("State")


@runtime_checkable
class DecoderGraphs(Protocol[State]):
    """An encoder and one step of a decoder, with a cache that the caller carries.

    A state stands for what one window of audio has become (the keys and values of its cross-attention) and
    for the tokens that each of its rows has read so far (the keys and values of its self-attention). Nobody
    but the graphs looks into it. A state is spent by `step` and `reorder`: the caller goes on with what they
    return and never uses the old one again, so that graphs may grow a cache where it lies. `encode` spends
    every state before it: a caller works on one window at a time.
    """

    @property
    def max_rows(self) -> int:
        """The most rows that a state can have; 1 where the graphs run no beams."""
        ...

    def encode(self, features: FloatArray) -> State:
        """The state of one window of features [mels, frames]: one row that has read no token."""
        ...

    def step(self, state: State, tokens: Tokens) -> tuple[FloatArray, State]:
        """Read more tokens.

        Args:
            state: B rows that have read t tokens each.
            tokens: [B, n], n >= 1: row i goes on with tokens[i]; t + n is at most the positions that the
                decoder has (`max_target_positions` of config.json). The first call reads a whole prompt, and
                later calls mostly one token.

        Returns:
            Logits [B, vocabulary] of the token after the last of each row, raw and float32, in an array that
            the caller may write to; and the state of B rows that have read t + n tokens.
        """
        ...

    def reorder(self, state: State, rows: Tokens) -> State:
        """The state whose row i goes on from row rows[i] of `state`.

        `rows` [B'] may leave out, repeat and swap rows; B' is 1 to `max_rows` and may differ from B: a search
        with beams reads the prompt in one row and then asks for rows [0, 0, 0, ...].
        """
        ...


@dataclass(frozen=True)
class DecodingOptions:
    """What is asked of a transcription by an encoder-decoder.

    Attributes:
        language: Code or English name of the language that is spoken; None: detected in each recording. Of a
            checkpoint of one language: None.
        task: Write down what is said, or translate it into English.
        timestamps: Whether segments carry times; without them, one segment has the whole text of a window.
        beams: Hypotheses that the search keeps; 1 is greedy.
        max_tokens: The most tokens written of one window, without its prompt; None: what the checkpoint
            says.
        previous_text: Whether a window is read after the text of the window before. It helps names and
            sentences across windows, and carries errors and loops on.
    """

    language: str | None = None
    task: Task = "transcribe"
    timestamps: bool = False
    beams: int = 1
    max_tokens: int | None = None
    previous_text: bool = False


@dataclass(frozen=True)
class Segment:
    """Text of a stretch of a recording, from `start` to `end` seconds."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Transcription:
    """What a recording says.

    Attributes:
        text: All of it.
        language: Code of the language that it was decoded in; None where the checkpoint knows one only.
        segments: Its stretches in order; speechless windows have none.
    """

    text: str
    language: str | None
    segments: tuple[Segment, ...]


def check_rows(graphs: DecoderGraphs[Any], options: DecodingOptions) -> None:
    """Raise InputError where a search would keep more hypotheses than the graphs can run."""
    if options.beams > graphs.max_rows:
        raise InputError(f"beams {options.beams}: this model runs {graphs.max_rows} at a time")
