"""Clips, their cache in memory, augmentation, and batches of near-equal length."""

from __future__ import annotations

import csv
import os
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from . import synthesis

Audio = NDArray[np.float32]
SAMPLE_RATE = 16_000
CORPORA = ("an4", "speechocean762")
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Clip:
    """One recording: mono int16 audio at 16 kHz, shape (samples,), and its upper-case transcript."""

    audio: NDArray[np.int16]
    text: str
    speaker: str


@dataclass(frozen=True)
class Batch:
    """Equal-length clips: `audio` (clips, samples) float32, and one transcript for each row."""

    audio: Audio
    texts: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Audio, padding included."""
        return self.audio.size / SAMPLE_RATE


def shared_folder(name: str, variable: str) -> Path:
    """A folder of shared material: the environment variable, else `../shared/<name>` by the checkout."""
    folder = Path(os.environ.get(variable, REPOSITORY.parent / "shared" / name))
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; set {variable} to the folder of shared {name}")
    return folder


def load_clips(corpus: str, split: str, limit: int | None = None) -> list[Clip]:
    """The clips of one corpus and split, in manifest order; `limit` spreads a choice over the speakers."""
    folder = shared_folder("speech", "BITVOX_SPEECH") / corpus
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    if limit is not None and limit < len(rows):
        rows = [rows[index * len(rows) // limit] for index in range(limit)]
    return [read_clip(folder / row["path"], row["text"], row["speaker"]) for row in rows]


def read_clip(path: Path, text: str, speaker: str) -> Clip:
    """One clip from a mono 16 kHz file."""
    audio, rate = soundfile.read(path, dtype="int16")
    if rate != SAMPLE_RATE or audio.ndim != 1:
        raise ValueError(f"{path}: {rate} Hz, {audio.ndim} dimensions; expected mono at {SAMPLE_RATE} Hz")
    return Clip(audio, text, speaker)


def synthetic_clips(
    store: Path, seed: int, spelling: int, sentences: int, transcripts: Sequence[str]
) -> tuple[list[Clip], list[Clip]]:
    """Spoken spelling texts and spoken sentences, kept in the file `store` once they have been made."""
    utterances = synthesis.plan(seed, spelling, sentences, transcripts)
    if store.exists():
        stored = np.load(store)
        audio = np.split(stored["audio"], stored["ends"][:-1])
    else:
        audio = synthesis.speak_all(utterances)
        partial = store.with_suffix(".partial.npz")
        np.savez(partial, audio=np.concatenate(audio), ends=np.cumsum([len(item) for item in audio]))
        partial.replace(store)
    if len(audio) != len(utterances):
        raise ValueError(f"{store}: {len(audio)} clips, the plan has {len(utterances)}; delete the file")
    clips = [Clip(item, one.text, one.voice.variant) for item, one in zip(audio, utterances, strict=True)]
    return clips[:spelling], clips[spelling:]


def normalise(audio: Audio) -> Audio:
    """Zero mean and unit variance over the clip, as the model's feature extractor does it."""
    return (audio - audio.mean()) / np.sqrt(audio.var() + 1e-7)


def as_float(audio: NDArray[np.int16]) -> Audio:
    """Samples as float32 in the range -1 to 1."""
    return np.divide(audio, 32768, dtype=np.float32)


@cache
def _noise_stock(exponent: float) -> Audio:
    """65 s of noise of unit power whose spectrum falls as frequency ** -exponent (0 white, 0.5 pink)."""
    length = 1 << 20
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(length))
    spectrum *= np.arange(1, spectrum.size + 1) ** -exponent
    noise = np.fft.irfft(spectrum, length).astype(np.float32)
    return noise / np.sqrt(np.mean(noise**2))


def coloured_noise(length: int, rng: np.random.Generator) -> Audio:
    """Noise of unit power, its spectrum flat or falling at random; shape (length,)."""
    stock = _noise_stock(float(rng.choice((0.0, 0.5, 0.8))))
    start = int(rng.integers(0, len(stock) - length))
    return stock[start : start + length]


def _room_and_channel(audio: Audio, rng: np.random.Generator) -> Audio:
    """A random smooth frequency response (up to 6 dB) and, for a third of the clips, a random room."""
    size = 1 << (len(audio) + 8192 - 1).bit_length()
    spectrum = np.fft.rfft(audio, size)
    knots = rng.uniform(-6, 6, 7)
    decibels = np.interp(np.linspace(0, 1, spectrum.size), np.linspace(0, 1, 7) ** 2, knots)
    spectrum *= 10 ** (decibels / 20)
    if rng.random() < 0.3:
        time = np.arange(8000) / SAMPLE_RATE
        tail = rng.standard_normal(8000) * np.exp(-6.9 * time / rng.uniform(0.1, 0.5))
        tail *= rng.uniform(0.1, 0.8) / np.sqrt(np.sum(tail**2))
        tail[0] = 1.0
        spectrum *= np.fft.rfft(tail, size)
    return np.fft.irfft(spectrum, size)[: len(audio)].astype(np.float32)


def augment(audio: NDArray[np.int16], rng: np.random.Generator) -> Audio:
    """One random rendering of a clip: speed, silence around it, channel, room and noise; normalised.

    The length changes with the speed (0.85 to 1.15) and the silence (up to 0.35 s at each end).
    """
    speed = rng.uniform(0.85, 1.15)
    result = soxr.resample(as_float(audio), SAMPLE_RATE, SAMPLE_RATE / speed, quality="LQ")
    before, after = (rng.uniform(0, 0.35, 2) ** 2 / 0.35 * SAMPLE_RATE).astype(int)
    result = np.pad(result, (before, after))
    if rng.random() < 0.45:
        result = _room_and_channel(result, rng)
    if rng.random() < 0.6:
        level = np.sqrt(np.mean(result**2)) * 10 ** (-rng.uniform(10, 40) / 20)
        result = result + level * coloured_noise(len(result), rng)
    return normalise(result.astype(np.float32))


class JoinedClips:
    """Draws a clip, or sometimes two clips of one speaker with a pause between."""

    def __init__(self, clips: Sequence[Clip], chance: float) -> None:
        self._clips, self._chance = clips, chance
        self._by_speaker: dict[str, list[Clip]] = defaultdict(list)
        for clip in clips:
            self._by_speaker[clip.speaker].append(clip)

    def draw(self, rng: random.Random) -> Clip:
        """One clip, or two as one of at most 7 s."""
        clip = rng.choice(self._clips)
        if rng.random() >= self._chance:
            return clip
        other = rng.choice(self._by_speaker[clip.speaker])
        if len(clip.audio) + len(other.audio) > 7 * SAMPLE_RATE:
            return clip
        pause = np.zeros(int(rng.uniform(0.0, 0.3) * SAMPLE_RATE), dtype=np.int16)
        return Clip(
            np.concatenate((clip.audio, pause, other.audio)), f"{clip.text} {other.text}", clip.speaker
        )


class Mixture:
    """Draws clips from several sources by weight; a source gives one clip for a random state."""

    def __init__(self, sources: Mapping[str, Callable[[random.Random], Clip]]) -> None:
        self._sources = sources

    def draw(self, weights: Mapping[str, float], rng: random.Random) -> Clip:
        """One clip of a source chosen by `weights`."""
        name = rng.choices(list(weights), weights=list(weights.values()))[0]
        return self._sources[name](rng)

    def batches(
        self, weights: Mapping[str, float], seed: int, pool: int = 192, seconds: float = 28.0
    ) -> Iterator[Batch]:
        """Batches of at most `seconds` of padded audio made from `pool` augmented clips.

        Sorting within the pool keeps the lengths in a batch near-equal: the group norm of the first
        convolution sees the padding, so a batch must hold little of it.
        """
        choice, noise = random.Random(seed), np.random.default_rng(seed)
        drawn = [self.draw(weights, choice) for _ in range(pool)]
        items = sorted(((augment(c.audio, noise), c.text) for c in drawn), key=lambda item: len(item[0]))
        groups: list[list[tuple[Audio, str]]] = [[]]
        for item in items:
            if len(item[0]) * (len(groups[-1]) + 1) > seconds * SAMPLE_RATE and groups[-1]:
                groups.append([])
            groups[-1].append(item)
        choice.shuffle(groups)
        for group in groups:
            yield _padded(group, noise)


def _padded(items: Sequence[tuple[Audio, str]], rng: np.random.Generator) -> Batch:
    longest = max(len(audio) for audio, _ in items)
    rows = np.zeros((len(items), longest), dtype=np.float32)
    for row, (audio, _) in zip(rows, items, strict=True):
        start = int(rng.integers(0, longest - len(audio) + 1))
        row[start : start + len(audio)] = audio
    return Batch(rows, tuple(text for _, text in items))
