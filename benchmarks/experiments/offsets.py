"""Recordings heard again a fraction of a frame later: the same words, other frames.

A model whose scores for two letters are close writes one or the other by where its frames begin. Such errors
fall anew at each offset, in full precision too; their mean over offsets leaves what a method really costs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from bitvox.benchmarks.dataset import Dataset, Utterance
from bitvox.compiler.frontend.audio import read_clip


def at_offsets(dataset: Dataset, count: int, frame: int, rate: int, folder: Path) -> Dataset:
    """Every recording `count` times, each `frame / count` samples later than the one before.

    What comes before a recording is its own beginning, mirrored: the room goes on, and no silence is added.
    Copies are written to the folder in 32-bit float; speakers and texts stay.

    Args:
        frame: Samples from one output of the model to the next.
        rate: Of the samples, in Hz.
    """
    found: list[Utterance] = []
    for utterance in dataset.utterances:
        samples = read_clip(utterance.path, rate).samples
        for number in range(count):
            path = folder / f"{utterance.path.stem}-{number}.wav"
            soundfile.write(path, np.pad(samples, (number * frame // count, 0), "reflect"), rate, "FLOAT")
            found.append(Utterance(path, utterance.speaker, utterance.text))
    return Dataset(dataset.origin, tuple(found))
