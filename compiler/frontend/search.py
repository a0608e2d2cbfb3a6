"""Find the tokens that a decoder finds likely: greedily, or with beams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from bitvox.compiler.frontend.decoding import DecoderGraphs
from bitvox.compiler.frontend.token_rules import TokenRules, log_sum
from bitvox.errors import InputError

FloatArray = npt.NDArray[np.float32]
State = TypeVar("State")


@dataclass(frozen=True)
class Hypothesis:
    """A transcript of a window.

    Attributes:
        tokens: What was written after the prompt, without the token that ends it.
        ended: Whether that token was written; it is not where the limit came first.
        score: Mean log-probability of the tokens, the one that ends it included.
    """

    tokens: tuple[int, ...]
    ended: bool
    score: float


@dataclass(frozen=True)
class _Beam:
    tokens: tuple[int, ...]
    score: np.float32  # sum of log-probabilities


def greedy(
    graphs: DecoderGraphs[State], state: State, logits: FloatArray, rules: TokenRules, end: int, limit: int
) -> Hypothesis:
    """Write the likeliest token until it is `end`, `limit` (1 or more) tokens at most.

    Args:
        graphs: The decoder.
        state: One row that has read the prompt.
        logits: [1, vocabulary] after the prompt.
        rules: What may be written.
        end: Token that ends a transcript.
        limit: The most tokens, `end` included.

    Raises:
        InputError: Logits are not finite.
    """
    tokens: list[int] = []
    total = 0.0
    while True:
        rules.apply(logits, [tokens])
        best = int(logits[0].argmax())
        total += float(logits[0, best] - _total(logits)[0])
        if best == end:
            return Hypothesis(tuple(tokens), True, total / (len(tokens) + 1))
        tokens.append(best)
        if len(tokens) == limit:
            return Hypothesis(tuple(tokens), False, total / len(tokens))
        logits, state = graphs.step(state, np.array([[best]], np.int64))


def beam_search(
    graphs: DecoderGraphs[State],
    state: State,
    logits: FloatArray,
    rules: TokenRules,
    end: int,
    limit: int,
    beams: int,
) -> Hypothesis:
    """The transcript of the best mean log-probability among those that `beams` hypotheses lead to.

    Every hypothesis is continued with every token, and the best 2 * beams continuations are looked at: those
    that end are kept aside, the best `beams` others go on. It is over when none that goes on has a better
    mean than the worst of `beams` that are kept. Arguments as of `greedy`.
    """
    running = [_Beam((), np.float32(0))]
    finished: list[Hypothesis] = []
    while True:
        continued = _continuations(running, logits, rules, 2 * beams)
        length = len(running[0].tokens) + 1
        finished += [_finish(beam, end) for _, beam in continued[:beams] if _ends(beam, end, limit)]
        finished = sorted(finished, key=lambda one: one.score, reverse=True)[:beams]
        going = [(row, beam) for row, beam in continued if not _ends(beam, end, limit)][:beams]
        if not going or (len(finished) == beams and going[0][1].score / length <= finished[-1].score):
            return finished[0]
        running = [beam for _, beam in going]
        state = graphs.reorder(state, np.array([row for row, _ in going], np.int64))
        logits, state = graphs.step(state, np.array([[beam.tokens[-1]] for beam in running], np.int64))


def _continuations(
    running: list[_Beam], logits: FloatArray, rules: TokenRules, count: int
) -> list[tuple[int, _Beam]]:
    """The best `count` hypotheses of one token more, best first, each with the row that it continues."""
    scores = logits - _total(logits)[:, None]
    rules.apply(scores, [beam.tokens for beam in running])
    scores += np.array([beam.score for beam in running], np.float32)[:, None]
    rows, tokens = np.divmod(_largest(scores.reshape(-1), count), scores.shape[1])
    return [
        (int(row), _Beam((*running[row].tokens, int(token)), scores[row, token]))
        for row, token in zip(rows, tokens, strict=True)
    ]


def _ends(beam: _Beam, end: int, limit: int) -> bool:
    return beam.tokens[-1] == end or len(beam.tokens) == limit


def _finish(beam: _Beam, end: int) -> Hypothesis:
    ended = beam.tokens[-1] == end
    tokens = beam.tokens[:-1] if ended else beam.tokens
    return Hypothesis(tokens, ended, float(beam.score) / len(beam.tokens))


def _total(logits: FloatArray) -> FloatArray:
    """What softmax divides the rows of logits [rows, vocabulary] by, as a logarithm [rows]."""
    total = log_sum(logits)
    if not np.isfinite(total).all():
        raise InputError("the decoder's logits are not finite: the model is damaged")
    return total


def _largest(scores: FloatArray, count: int) -> npt.NDArray[np.intp]:
    """Where the largest finite scores [n] are, `count` or fewer, the largest first.

    The largest of each of many groups are found first: that leaves a handful of a large vocabulary to sort.
    """
    count = min(count, scores.size)
    groups = max(count, int(np.sqrt(scores.size)))
    whole = scores.size - scores.size % groups
    tops = np.concatenate((scores[:whole].reshape(-1, groups).max(axis=0), scores[whole:]))
    least = np.partition(tops, -count)[-count]
    found = np.flatnonzero((scores >= least) & (scores > -np.inf))
    return found[np.argsort(-scores[found], kind="stable")][:count]
