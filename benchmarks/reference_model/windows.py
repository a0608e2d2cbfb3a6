"""Clips in the windows of a model that always reads one length: placed, at any level, masked, or silent."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from .data import SAMPLE_RATE, Clip

Audio = NDArray[np.float32]
WINDOW_S = 10.0
# What speed and silence around it can make of a longer clip would not fit.
LONGEST_CLIP_S = 6.5
FRAMES_PER_SECOND = 100
_POSITION = 320  # samples of one position of the encoder


@dataclass(frozen=True)
class Windows:
    """A batch as the model reads it.

    Attributes:
        features: Log-mel features (clips, bins, frames), of whole windows or shorter.
        audio: The same audio at unit variance, (clips, samples).
        texts: One transcript for each row.
    """

    features: torch.Tensor
    audio: torch.Tensor
    texts: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Audio, padding included."""
        return self.features.shape[0] * self.features.shape[2] / FRAMES_PER_SECOND


def short(draw: Callable[[random.Random], Clip]) -> Callable[[random.Random], Clip]:
    """Draws again until the clip fits a window."""

    def drawn(rng: random.Random) -> Clip:
        while len((clip := draw(rng)).audio) > LONGEST_CLIP_S * SAMPLE_RATE:
            pass
        return clip

    return drawn


def silence(rng: random.Random) -> Clip:
    """Nothing said: digital silence or faint noise of up to 6 s."""
    length = int(rng.uniform(0.2, 6.0) * SAMPLE_RATE)
    level = rng.choice((0.0, 1.0, 30.0, 300.0))
    noise = np.random.default_rng(rng.getrandbits(32)).standard_normal(length)
    return Clip((level * noise).astype(np.int16), "", "silence")


def placed(audio: Audio, full: bool, rng: np.random.Generator) -> tuple[Audio, Audio]:
    """Rows of unit variance at random levels, each in a whole window or in one that just holds the longest.

    Returns them with the levels and without.
    """
    levels = (10 ** (rng.uniform(-40, -12, (len(audio), 1)) / 20)).astype(np.float32)
    heard = np.clip(audio * levels, -1, 1)
    length = round(WINDOW_S * SAMPLE_RATE) if full else -(-audio.shape[1] // _POSITION) * _POSITION
    rows = np.zeros((len(audio), length), dtype=np.float32)
    for row, samples in zip(rows, heard, strict=True):
        start = int((length - len(samples)) * rng.random() ** 3) if rng.random() < 0.6 else 0
        row[start : start + len(samples)] = samples
    return rows, np.divide(rows, levels, dtype=np.float32)


def masked(features: torch.Tensor) -> torch.Tensor:
    """SpecAugment (Park et al. 2019): bands of frames and of mel bins of each clip set to the clip's mean."""
    result = features.clone()
    clips, bins, frames = features.shape
    for row in range(clips):
        mean = features[row].mean()
        for _ in range(max(1, round(frames / 200))):
            start, width = _band(frames, 25)
            result[row, :, start : start + width] = mean
        for _ in range(2):
            start, width = _band(bins, 14)
            result[row, start : start + width] = mean
    return result


def _band(length: int, widest: int) -> tuple[int, int]:
    width = int(torch.randint(0, widest, ()))
    return int(torch.randint(0, max(1, length - width), ())), width
