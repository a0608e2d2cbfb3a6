"""What a decoder may write next, whatever its logits say (Radford et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bitvox.compiler.frontend.decoding import Tokens

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TimeRules:
    """How times are written: one, text, one; then a pair again for every stretch, and never backwards.

    Attributes:
        first: Token of time 0; all tokens from it on are times.
        no_times: Token of a prompt that asks for none.
        end: Token that ends a transcript.
        last_first: The greatest number of a time to begin with; None: any.
    """

    first: int
    no_times: int
    end: int
    last_first: int | None

    def apply(self, scores: FloatArray, written: Sequence[int]) -> None:
        """Put -inf on what may not follow; a time is forced where times are likelier than any one text token.

        Args:
            scores: [vocabulary], logits or log-probabilities; written to.
            written: Tokens after the prompt.
        """
        scores[self.no_times] = -np.inf
        if written:
            self._continue(scores, written)
        else:
            scores[: self.first] = -np.inf
            if self.last_first is not None:
                scores[self.first + self.last_first + 1 :] = -np.inf
        if log_sum(scores[self.first :]) > scores[: self.first].max():
            scores[: self.first] = -np.inf

    def _continue(self, scores: FloatArray, written: Sequence[int]) -> None:
        times = [token for token in written if token >= self.first]
        after_time = written[-1] >= self.first
        opened = after_time and (len(written) == 1 or written[-2] >= self.first)
        closed = after_time and not opened
        if opened:
            scores[self.first :] = -np.inf
        if closed:  # another stretch, from the same time on, or the end
            end = scores[self.end]
            scores[: self.first] = -np.inf
            scores[self.end] = end
        if times:
            scores[self.first : times[-1] + (0 if closed else 1)] = -np.inf


@dataclass(frozen=True)
class TokenRules:
    """Everything that forbids a token.

    Attributes:
        suppressed: Tokens that are never written; `suppressed_first`: that are not the first.
        times: Where times are written.
    """

    suppressed: Tokens
    suppressed_first: Tokens
    times: TimeRules | None

    def apply(self, scores: FloatArray, written: Sequence[Sequence[int]]) -> None:
        """Put -inf on what may not follow.

        Args:
            scores: [rows, vocabulary], logits or log-probabilities; written to.
            written: Tokens after the prompt, of each row.
        """
        scores[:, self.suppressed] = -np.inf
        for row, tokens in zip(scores, written, strict=True):
            if not tokens:
                row[self.suppressed_first] = -np.inf
            if self.times is not None:
                self.times.apply(row, tokens)


def log_sum(scores: FloatArray) -> FloatArray:
    """Logarithm of the sum of exponentials of each row [..., n]."""
    highest = scores.max(axis=-1, keepdims=True)
    shift = np.where(np.isfinite(highest), highest, np.float32(0))
    with np.errstate(divide="ignore"):  # of a row of nothing but -inf
        return np.asarray(shift[..., 0] + np.log(np.exp(scores - shift).sum(axis=-1)), np.float32)
