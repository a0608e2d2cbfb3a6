"""Interleaved timing of many methods on one problem, so that a busy machine disturbs all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

Run = Callable[[], object]
Clock = Callable[[], float]

_SLICE = 0.002  # seconds of calls between two readings of the clock


@dataclass(frozen=True)
class Timing:
    """Microseconds per call of one method, one value per round."""

    rounds: tuple[float, ...]

    @property
    def least(self) -> float:
        """The fastest round: the method undisturbed."""
        return min(self.rounds)

    def less(self, overhead: float) -> Timing:
        """Without what a call costs before any work; never below a tenth of the measured time."""
        return Timing(tuple(max(value - overhead, value / 10) for value in self.rounds))


def ratio(slow: Timing, fast: Timing) -> tuple[float, float, float]:
    """How many times faster `fast` is: the median over rounds, and the quartiles around it."""
    ratios = [a / b for a, b in zip(slow.rounds, fast.rounds, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return middle, low, high


def interleaved(
    methods: dict[str, Run], seconds: float, rounds: int = 40, clock: Clock = time.thread_time
) -> dict[str, Timing]:
    """Time every method once per round for at most `seconds`, at least 5 rounds, by CPU time.

    An untimed call precedes every slice, because the method before it has emptied the caches and may have let
    matrix registers fall asleep.
    """
    repeats = {name: _repeats(run) for name, run in methods.items()}
    values: dict[str, list[float]] = {name: [] for name in methods}
    end = time.monotonic() + seconds
    for done in range(rounds):
        if done >= 5 and time.monotonic() > end:
            break
        for name, run in methods.items():
            run()
            start = clock()
            for _ in range(repeats[name]):
                run()
            values[name].append((clock() - start) / repeats[name] * 1e6)
    return {name: Timing(tuple(rounds_of)) for name, rounds_of in values.items()}


def _repeats(run: Run) -> int:
    run()
    start = time.perf_counter()
    run()
    return max(1, min(200, int(_SLICE / max(time.perf_counter() - start, 1e-6))))
