"""Log-mel features of windows of one fixed length, as Whisper reads them (Radford et al. 2022), in NumPy."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from bitvox.compiler.frontend.slaney import slaney_filters

FloatArray = npt.NDArray[np.float32]
_Doubles = npt.NDArray[np.float64]

_LEAST_ENERGY = 1e-10
_RANGE = 8.0  # powers of ten below the loudest that are told apart
_HIGHEST = 8000.0  # Hz, whatever the sampling rate


class WindowLogMel(BaseModel):
    """How a window of samples becomes log-mel features (a file boundary: stored in the manifest).

    Attributes:
        sampling_rate: Samples per second.
        points: Samples that one frame looks at, and points of its Fourier transform.
        hop: Samples from one frame to the next.
        bins: Mel filters, triangles in Hz between edges evenly spaced on Slaney's mel scale up to 8 kHz, each
            divided by half its width.
        frames: Frames of a window.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sampling_rate: int
    points: int
    hop: int
    bins: int
    frames: int

    @property
    def samples(self) -> int:
        """Samples of a window."""
        return self.frames * self.hop

    def features(self, samples: FloatArray) -> FloatArray:
        """Features [bins, frames] of samples [T]: what a window lacks is silence, what it cannot hold is cut.

        Frame i looks at `points` samples around sample i * hop, mirrored at the ends of the window. Values
        are (log10(energy) + 4) / 4, cut off 8 powers of ten below the loudest.
        """
        window = np.zeros(self.samples)
        window[: samples.size] = samples[: self.samples]
        mirrored = np.pad(window, self.points // 2, mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(mirrored, self.points)[:: self.hop][: self.frames]
        spectrum = np.fft.rfft(frames * _hann(self.points))
        filters = slaney_filters(self.sampling_rate, self.points, self.bins, _HIGHEST)
        energies = (spectrum.real**2 + spectrum.imag**2) @ filters
        levels = np.log10(np.maximum(energies, _LEAST_ENERGY))
        levels = np.maximum(levels, levels.max() - _RANGE)
        return np.ascontiguousarray((levels.T + 4.0) / 4.0, np.float32)


@cache
def _hann(length: int) -> _Doubles:
    """A Hann window that would go on with period `length`."""
    return np.hanning(length + 1)[:-1]
