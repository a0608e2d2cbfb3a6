"""Recordings made worse, the same way each time: noise, a room, a telephone line.

Each takes samples [T], float32 at `rate`, and a generator, and returns as many samples of the same power.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import signal

from bitvox.compiler.frontend.model import FloatArray

Augmentation = Callable[[FloatArray, int, np.random.Generator], FloatArray]

_REVERBERATION_SECONDS = 0.5
_DIRECT_TO_REVERBERANT_DB = 0.0
_TELEPHONE_RATE, _TELEPHONE_BAND, _MU = 8000, (300.0, 3400.0), 255.0


def noisy(decibels: float) -> Augmentation:
    """Pink noise (power falling as 1/f, as that of most places does) at that ratio of speech to noise."""

    def add(samples: FloatArray, rate: int, generator: np.random.Generator) -> FloatArray:
        spectrum = np.fft.rfft(generator.standard_normal(samples.size))
        noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(spectrum.size), 1)), samples.size)
        wanted = _power(samples) * 10 ** (-decibels / 10)
        return _like(samples, samples + noise * np.sqrt(wanted / max(_power(noise), 1e-20)))

    return add


def reverberant(samples: FloatArray, rate: int, generator: np.random.Generator) -> FloatArray:
    """Noise that decays by 60 dB in half a second (Polack 1988), in all as loud as the direct sound."""
    time = np.arange(round(_REVERBERATION_SECONDS * rate)) / rate
    tail = generator.standard_normal(time.size) * 10 ** (-3 * time / _REVERBERATION_SECONDS)
    tail *= np.sqrt(10 ** (-_DIRECT_TO_REVERBERANT_DB / 10) / (tail**2).sum())
    tail[0] += 1.0
    return _like(samples, signal.fftconvolve(samples, tail)[: samples.size])


def telephone(samples: FloatArray, rate: int, generator: np.random.Generator) -> FloatArray:
    """300 to 3400 Hz at 8 kHz in the 8 bits of mu-law (ITU-T G.711)."""
    narrow = signal.resample_poly(samples, _TELEPHONE_RATE, rate)
    band = signal.butter(4, _TELEPHONE_BAND, "bandpass", fs=_TELEPHONE_RATE, output="sos")
    narrow = signal.sosfilt(band, narrow)
    loudest = max(float(np.abs(narrow).max()), 1e-9)
    pressed = np.sign(narrow) * np.log1p(_MU * np.abs(narrow) / loudest) / np.log1p(_MU)
    stepped = np.round(pressed * 127) / 127
    heard = np.sign(stepped) * np.expm1(np.abs(stepped) * np.log1p(_MU)) / _MU * loudest
    wide = signal.resample_poly(heard, rate, _TELEPHONE_RATE)
    return _like(samples, np.pad(wide, (0, max(0, samples.size - wide.size)))[: samples.size])


AUGMENTATIONS: dict[str, Augmentation] = {
    "noise 20 dB": noisy(20),
    "noise 10 dB": noisy(10),
    "noise 5 dB": noisy(5),
    "reverberation": reverberant,
    "telephone": telephone,
}


def augmented(samples: FloatArray, rate: int, how: str, name: str) -> FloatArray:
    """The samples after one of `AUGMENTATIONS`; what is random in it follows from the recording's name."""
    generator = np.random.default_rng(zlib.crc32(f"{how} {name}".encode()))
    return AUGMENTATIONS[how](samples, rate, generator)


def _power(samples: npt.NDArray[np.floating]) -> float:
    return float(np.mean(np.square(samples, dtype=np.float64)))


def _like(samples: FloatArray, changed: npt.NDArray[np.floating]) -> FloatArray:
    """The changed samples at the power of the others."""
    scale = np.sqrt(_power(samples) / max(_power(changed), 1e-20))
    return (changed * scale).astype(np.float32)
