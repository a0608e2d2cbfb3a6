"""Log-mel features in NumPy, so that a bundle computes them where there is no torch.

The filter bank of Kaldi (Povey et al. 2011), as checkpoints that read log-mel features were trained with.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

FloatArray = npt.NDArray[np.float32]
_Doubles = npt.NDArray[np.float64]

# Kaldi reads 16-bit samples as whole numbers.
_FULL_SCALE = 2.0**15
_POVEY_EXPONENT = 0.85
_LEAST_ENERGY = 2.0**-23  # float32's step at 1
_VARIANCE_FLOOR = 1e-7


class LogMel(BaseModel):
    """How samples become log-mel features (a file boundary: stored in the manifest).

    Attributes:
        sampling_rate: Samples per second.
        window: Samples of a window; windows lie wholly inside the clip.
        hop: Samples from one window to the next.
        points: Points of the Fourier transform.
        bins: Mel filters, triangles on the mel scale from `lowest` Hz to half the sampling rate.
        lowest: Lower edge of the first filter, in Hz.
        preemphasis: Share of the sample before that is taken off each sample.
        stacked: Windows that make up one frame of features, side by side; a rest is dropped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sampling_rate: int
    window: int
    hop: int
    points: int
    bins: int
    lowest: float
    preemphasis: float
    stacked: int

    @property
    def minimum_samples(self) -> int:
        """Shortest clip that yields one frame."""
        return self.window + (self.stacked - 1) * self.hop

    def shape(self, samples: int) -> tuple[int, int]:
        """Shape of the features of that many samples."""
        windows = max(0, (samples - self.window) // self.hop + 1)
        return windows // self.stacked, self.bins * self.stacked

    def features(self, samples: FloatArray) -> FloatArray:
        """Features [frames, bins * stacked] of samples [T], each bin with zero mean and unit variance."""
        energies = self._energies(samples)
        log_mel = np.log(np.maximum(energies, _LEAST_ENERGY)).astype(np.float32)
        centred = log_mel - log_mel.mean(axis=0)
        normal = centred / np.sqrt(log_mel.var(axis=0, ddof=1) + np.float32(_VARIANCE_FLOOR))
        frames, width = self.shape(samples.size)
        return np.ascontiguousarray(normal[: frames * self.stacked].reshape(frames, width), np.float32)

    def _energies(self, samples: FloatArray) -> _Doubles:
        """Energy in each mel filter, [windows, bins]."""
        frames = KaldiFrames(self.window, self.hop, self.points, self.preemphasis)
        scaled = samples.astype(np.float64) * _FULL_SCALE
        return frames.energies(scaled, _povey(self.window), self.sampling_rate, self.bins, self.lowest)


@dataclass(frozen=True)
class KaldiFrames:
    """Windows that lie wholly inside a clip, each without its mean; fields as in `LogMel`."""

    window: int
    hop: int
    points: int
    preemphasis: float

    def energies(self, samples: _Doubles, shape: _Doubles, rate: int, bins: int, lowest: float) -> _Doubles:
        """Energy in each mel filter, [windows, bins], of samples [T] under a window of that shape."""
        windows = np.lib.stride_tricks.sliding_window_view(samples, self.window)[:: self.hop]
        windows = windows - windows.mean(axis=1, keepdims=True)
        before = np.concatenate((windows[:, :1], windows[:, :-1]), axis=1)
        spectrum = np.fft.rfft((windows - self.preemphasis * before) * shape, self.points)
        return (spectrum.real**2 + spectrum.imag**2) @ _triangles(rate, self.points, bins, lowest)


@cache
def _povey(length: int) -> _Doubles:
    """Kaldi's window: a Hann window, both ends zero, to the power 0.85."""
    return np.power(np.hanning(length), _POVEY_EXPONENT)


@cache
def _triangles(rate: int, points: int, bins: int, lowest: float) -> _Doubles:
    """Weight of each frequency in each filter, [points / 2 + 1, bins], triangles on the mel scale."""
    frequencies = _mel(np.arange(points // 2 + 1) * rate / points)
    return triangles(frequencies, np.linspace(_mel(np.float64(lowest)), _mel(np.float64(rate / 2)), bins + 2))


def _mel(hertz: npt.NDArray[np.float64] | np.float64) -> _Doubles:
    return np.asarray(1127.0 * np.log1p(hertz / 700.0))


def triangles(places: _Doubles, edges: _Doubles) -> _Doubles:
    """Overlapping triangles of height 1: number i rises from edges[i] to edges[i + 1], falls to edges[i + 2].

    Returns their values at `places`, [places, edges - 2].
    """
    rising = (places[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - places[:, None]) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rising, falling))
