"""New utterances out of the words of recorded ones.

A small corpus has so few texts that a model learns them by heart. A CTC model aligns each clip with its
transcript, the clip is cut where it is quietest between two words, and words of one speaker are joined in a
new order.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Wav2Vec2ForCTC, Wav2Vec2Processor

from .data import SAMPLE_RATE, Clip, as_float, normalise

HOP = 320
FADE = 80
# No word is spoken in less: the alignment went wrong, and its neighbours hold what it should.
SHORTEST = SAMPLE_RATE // 16


def align(scores: NDArray[np.float32], tokens: Sequence[int], blank: int = 0) -> NDArray[np.int64]:
    """First frame of each token on the best CTC path; `scores` are log-probabilities (frames, classes).

    Raises:
        ValueError: The clip has too few frames for the tokens.
    """
    states = np.full(2 * len(tokens) + 1, blank)
    states[1::2] = tokens
    skips = np.zeros(len(states), dtype=bool)
    skips[3::2] = states[3::2] != states[1:-2:2]
    best = np.full(len(states), -np.inf)
    best[:2] = scores[0, states[:2]]
    steps = np.zeros((len(scores), len(states)), dtype=np.int64)
    for frame in range(1, len(scores)):
        options = np.stack(
            (best, np.concatenate(([-np.inf], best[:-1])), np.concatenate(([-np.inf] * 2, best[:-2])))
        )
        options[2, ~skips] = -np.inf
        steps[frame] = options.argmax(axis=0)
        best = options.max(axis=0) + scores[frame, states]
    state = len(states) - 1 - int(best[-2] > best[-1])
    if not np.isfinite(best[state]):
        raise ValueError(f"{len(scores)} frames are too few for {len(tokens)} tokens")
    first = np.zeros(len(tokens), dtype=np.int64)
    for frame in range(len(scores) - 1, -1, -1):
        if state % 2:
            first[state // 2] = frame
        state -= int(steps[frame, state])
    return first


def cut_words(clips: Sequence[Clip], model: Wav2Vec2ForCTC, processor: Wav2Vec2Processor) -> list[list[Clip]]:
    """The words of each clip in order, each a clip of its own; badly aligned clips are left out."""
    model.eval()
    cut = (_words_of(clip, model, processor) for clip in clips)
    return [words for words in cut if min(len(word.audio) for word in words) >= SHORTEST]


def _words_of(clip: Clip, model: Wav2Vec2ForCTC, processor: Wav2Vec2Processor) -> list[Clip]:
    words = clip.text.split()
    with torch.inference_mode():
        logits = model(torch.from_numpy(normalise(as_float(clip.audio)))[None]).logits[0]
    tokens = processor.tokenizer(clip.text).input_ids
    frames = align(torch.log_softmax(logits, -1).numpy(), tokens)
    power = np.convolve(as_float(clip.audio) ** 2, np.ones(2 * HOP), mode="same")
    cuts, position = [0], -1
    for word in words[:-1]:
        position += len(word) + 1
        before, after = frames[position - 1] * HOP, (frames[position + 1] + 1) * HOP
        cuts.append(int(before + power[before:after].argmin()))
    cuts.append(len(clip.audio))
    return [
        Clip(clip.audio[start:end], word, clip.speaker)
        for word, start, end in zip(words, cuts, cuts[1:], strict=False)
    ]


class WordStock:
    """The cut words of a corpus, by speaker, and the lengths of its utterances."""

    def __init__(self, utterances: Sequence[Sequence[Clip]]) -> None:
        self._words: dict[str, list[Clip]] = defaultdict(list)
        self._runs: dict[str, list[Sequence[Clip]]] = defaultdict(list)
        for words in utterances:
            self._words[words[0].speaker].extend(words)
            self._runs[words[0].speaker].append(words)
        self._speakers = [words[0].speaker for words in utterances]

    def draw(self, rng: random.Random) -> Clip:
        """A new utterance of one speaker: three to twelve words, single or in runs as they were spoken."""
        speaker = rng.choice(self._speakers)
        parts: list[Clip] = []
        wanted = rng.randint(3, 10)
        while len(parts) < wanted:
            if rng.random() < 0.6:
                parts.append(rng.choice(self._words[speaker]))
            else:
                run = rng.choice(self._runs[speaker])
                start = rng.randrange(len(run))
                parts.extend(run[start : start + rng.choice((2, 3))])
        return Clip(
            np.concatenate([_faded(part.audio) for part in parts]), " ".join(p.text for p in parts), speaker
        )


def _faded(audio: NDArray[np.int16]) -> NDArray[np.int16]:
    """The word without clicks at its ends: 5 ms of fade, long silences at the ends shortened to 0.15 s."""
    loud = np.flatnonzero(np.abs(audio.astype(np.int32)) > 0.04 * np.abs(audio.astype(np.int32)).max())
    spare = int(0.15 * SAMPLE_RATE)
    if loud.size:
        audio = audio[max(0, loud[0] - spare) : loud[-1] + spare]
    ramp = np.ones(len(audio), dtype=np.float32)
    ramp[:FADE] = np.linspace(0, 1, FADE)
    ramp[-FADE:] = ramp[:FADE][::-1]
    return (audio * ramp).astype(np.int16)
