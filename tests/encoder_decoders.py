"""A tiny random checkpoint of every encoder-decoder, and how transformers decodes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import moonshine_checkpoint
import numpy as np
import numpy.typing as npt
import soundfile
import whisper_checkpoint
from transformers import MoonshineForConditionalGeneration, WhisperForConditionalGeneration

RATE = 16_000


@dataclass(frozen=True)
class TinyDecoder:
    """A family.

    Attributes:
        reference: Its class in transformers.
        write: Writes a checkpoint into a folder, in the hub's layout; takes a `width` and how many `layers`
            the decoder has.
        generate: (Module, processor, samples, options) -> tokens that transformers writes.
        sites: How many the encoder, the keys and values of its hidden states, and the step have.
    """

    reference: Any
    write: Callable[..., Path]
    generate: Callable[..., list[int]]
    sites: tuple[int, int, int]


DECODERS = {
    # convolutions + sites of a layer, keys and values of two layers, two layers + head
    "whisper": TinyDecoder(
        WhisperForConditionalGeneration,
        whisper_checkpoint.write_checkpoint,
        whisper_checkpoint.generate,
        (2 + 6, 2 * 2, 2 * 8 + 1),
    ),
    "moonshine": TinyDecoder(
        MoonshineForConditionalGeneration,
        moonshine_checkpoint.write_checkpoint,
        moonshine_checkpoint.generate,
        (3 + 6, 2 * 2, 2 * 8 + 1),
    ),
}


def clip(seed: int) -> npt.NDArray[np.float32]:
    """Noise and a tone, up to the window of the tiny Whisper long."""
    draw = np.random.default_rng(seed)
    time = np.arange(draw.integers(RATE // 4, whisper_checkpoint.SECONDS * RATE)) / RATE
    tone = np.sin(2 * np.pi * draw.uniform(100, 4000) * time)
    return (0.1 * draw.standard_normal(time.size) + 0.3 * tone).astype(np.float32)


def write_voice(folder: Path) -> Path:
    """Five recordings of noise, the last longer than a window."""
    generator = np.random.default_rng(0)
    for index in range(5):
        samples = 0.1 * generator.standard_normal(6000 + 9000 * index)
        soundfile.write(folder / f"{index}.wav", samples.astype(np.float32), RATE)
    return folder
