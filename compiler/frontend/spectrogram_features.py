"""Log-mel features of a window, as the audio spectrogram transformer reads them, in NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from bitvox.compiler.frontend.features import KaldiFrames

FloatArray = npt.NDArray[np.float32]

# What ASTFeatureExtractor does and no file says: Kaldi's 25 ms windows every 10 ms, under a Hann window.
_WINDOW, _HOP, _POINTS, _LOWEST, _PREEMPHASIS = 400, 160, 512, 20.0, 0.97
_LEAST_ENERGY = 2.0**-23


class PaddedLogMel(BaseModel):
    """How samples become the log-mel features of one window (a file boundary: stored in the manifest).

    Attributes:
        sampling_rate: Samples per second.
        bins: Mel filters.
        frames: Frames of the window: a longer clip is cut, a shorter one goes on with zeros.
        mean: What is taken off each logarithm; `deviation`: half of what it is divided by then.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sampling_rate: int
    bins: int
    frames: int
    mean: float
    deviation: float

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return _HOP

    @property
    def minimum_samples(self) -> int:
        """Shortest clip that yields one frame."""
        return _WINDOW

    def shape(self, samples: int) -> tuple[int, int]:
        """Shape of the features, whatever the number of samples."""
        return self.frames, self.bins

    def features(self, samples: FloatArray) -> FloatArray:
        """Features [frames, bins] of samples [T]."""
        cut = samples[: _WINDOW + (self.frames - 1) * _HOP].astype(np.float64)
        kaldi = KaldiFrames(_WINDOW, _HOP, _POINTS, _PREEMPHASIS)
        energies = kaldi.energies(cut, np.hanning(_WINDOW), self.sampling_rate, self.bins, _LOWEST)
        filled = np.zeros((self.frames, self.bins))
        filled[: len(energies)] = np.log(np.maximum(energies, _LEAST_ENERGY))
        return ((filled - self.mean) / (2 * self.deviation)).astype(np.float32)
