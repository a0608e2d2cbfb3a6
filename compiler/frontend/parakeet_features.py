"""Log-mel features as Parakeet reads them, in NumPy, so that a bundle needs no torch to compute them."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from bitvox.compiler.frontend.slaney import slaney_filters

FloatArray = npt.NDArray[np.float32]
_Doubles = npt.NDArray[np.float64]

_ADDED_ENERGY = 2.0**-24
_ADDED_DEVIATION = 1e-5


class CentredLogMel(BaseModel):
    """How samples become log-mel features (a file boundary: stored in the manifest).

    Attributes:
        sampling_rate: Samples per second.
        window: Samples of a Hann window, in the middle of the points of a frame.
        hop: Samples from one frame to the next; frame i is centred on sample i * hop.
        points: Points of the Fourier transform; what lies outside the clip is silence.
        bins: Mel filters, triangles in Hz between edges evenly spaced on Slaney's mel scale up to half the
            sampling rate, each divided by half its width.
        preemphasis: Share of the sample before that is taken off each sample.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sampling_rate: int
    window: int
    hop: int
    points: int
    bins: int
    preemphasis: float

    @property
    def minimum_samples(self) -> int:
        """Shortest clip that has a deviation: two frames."""
        return 2 * self.hop

    def shape(self, samples: int) -> tuple[int, int]:
        """Shape of the features of that many samples."""
        return samples // self.hop, self.bins

    def features(self, samples: FloatArray) -> FloatArray:
        """Features [frames, bins] of samples [T], each bin with zero mean and unit deviation."""
        log_mel = np.log(self._energies(samples) + _ADDED_ENERGY)
        centred = log_mel - log_mel.mean(axis=0)
        deviation = log_mel.std(axis=0, ddof=1) + _ADDED_DEVIATION
        return np.ascontiguousarray(centred / deviation, np.float32)

    def _energies(self, samples: FloatArray) -> _Doubles:
        """Energy in each mel filter, [frames, bins]."""
        plain = samples.astype(np.float64)
        shaped = np.append(plain[:1], plain[1:] - self.preemphasis * plain[:-1])
        padded = np.pad(shaped, self.points // 2)
        frames = np.lib.stride_tricks.sliding_window_view(padded, self.points)[:: self.hop]
        spectrum = np.fft.rfft(frames[: self.shape(samples.size)[0]] * _hann(self.window, self.points))
        filters = slaney_filters(self.sampling_rate, self.points, self.bins, self.sampling_rate / 2)
        return (spectrum.real**2 + spectrum.imag**2) @ filters


@cache
def _hann(window: int, points: int) -> _Doubles:
    """A Hann window, both ends zero, in the middle of that many points."""
    before = (points - window) // 2
    return np.pad(np.hanning(window), (before, points - window - before))
