"""Mel filters of equal area between edges evenly spaced on Slaney's mel scale (Auditory Toolbox, 1998)."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import numpy.typing as npt

from bitvox.compiler.frontend.features import triangles

_Doubles = npt.NDArray[np.float64]

# 3 mel for 200 Hz, from 1000 Hz on 27 mel for a factor of 6.4.
_LINEAR = 200.0 / 3.0
_BREAK = 1000.0
_LOGARITHMIC = math.log(6.4) / 27.0


@cache
def slaney_filters(rate: int, points: int, bins: int, highest: float) -> _Doubles:
    """Weight of each frequency in each filter up to `highest` Hz, [points / 2 + 1, bins].

    Triangles in Hz, each divided by half its width.
    """
    edges = _hertz(np.linspace(0.0, _mel(highest), bins + 2))
    frequencies = np.arange(points // 2 + 1) * rate / points
    return triangles(frequencies, edges) * (2.0 / (edges[2:] - edges[:-2]))


def _mel(hertz: float) -> float:
    if hertz < _BREAK:
        return hertz / _LINEAR
    return _BREAK / _LINEAR + math.log(hertz / _BREAK) / _LOGARITHMIC


def _hertz(mel: _Doubles) -> _Doubles:
    above = np.maximum(mel - _BREAK / _LINEAR, 0.0)
    return np.where(above > 0, _BREAK * np.exp(_LOGARITHMIC * above), _LINEAR * mel)
