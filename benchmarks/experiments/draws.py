"""Means over calibration draws, with intervals that know that speakers and draws are both samples."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from bitvox.benchmarks.experiments.results import Rate
from bitvox.benchmarks.metrics import RESAMPLES

Values = npt.NDArray[np.float64]

PERCENT, MILLI = 100.0, 1000.0


def mean_rate(
    values: npt.ArrayLike, amounts: npt.ArrayLike, clusters: Sequence[Hashable], scale: float, seed: int = 0
) -> Rate:
    """Sum of the values over sum of the amounts, times `scale`, a mean over the draws.

    The 95 % interval is the percentile bootstrap over clusters (speakers) and, where there are several, over
    draws, each drawn with replacement. A difference is the rate of differences: what is subtracted clip by
    clip and draw by draw is paired in both. Of one draw it is the interval of `metrics.error_rate`.

    Args:
        values: Errors or divergences [draws, clips], or differences of such.
        amounts: Words or frames [clips].
        clusters: Speaker of each clip.
        scale: `PERCENT`, or `MILLI` for divergences.
        seed: Of the resampling.
    """
    sums = _by_cluster(np.atleast_2d(np.asarray(values, dtype=np.float64)), clusters)
    lengths = _by_cluster(np.asarray(amounts, dtype=np.float64)[None], clusters)[0]
    draws, count = sums.shape
    generator = np.random.default_rng(seed)
    speakers = generator.multinomial(count, np.full(count, 1 / count), size=RESAMPLES).astype(np.float64)
    chosen = generator.multinomial(draws, np.full(draws, 1 / draws), size=RESAMPLES) / draws
    found = ((chosen @ sums) * speakers).sum(axis=1)
    below = speakers @ lengths
    filled = below > 0
    if not filled.any():
        return Rate(percent=None, low=None, high=None)
    low, high = np.percentile(scale * found[filled] / below[filled], (2.5, 97.5))
    middle = scale * sums.mean(axis=0).sum() / lengths.sum()
    return Rate(percent=round(float(middle), 4), low=round(float(low), 4), high=round(float(high), 4))


def _by_cluster(values: Values, clusters: Sequence[Hashable]) -> Values:
    """Sum of the values of each cluster [draws, clusters]."""
    order = {cluster: index for index, cluster in enumerate(dict.fromkeys(clusters))}
    sums = np.zeros((values.shape[0], len(order)))
    for column, cluster in enumerate(clusters):
        sums[:, order[cluster]] += values[:, column]
    return sums
