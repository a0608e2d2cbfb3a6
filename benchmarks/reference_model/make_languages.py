"""Writes spoken digits in five languages.

`python -m bitvox.benchmarks.reference_model.make_languages --out DIR`

A folder for each language with `manifest.csv`, as `bitvox eval --data` reads it. Nobody speaks here:
espeak-ng made every clip, with its own rules of each language and variants of one formant synthesiser as
speakers, so that languages differ in words and sounds but not in who records them or how.
"""

from __future__ import annotations

import argparse
import csv
import random
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from . import synthesis
from .data import SAMPLE_RATE

# Of the ten that the paper of myQASR tests Whisper on.
LANGUAGES = synthesis.words_of("de en fr ja ru")
DIGITS = "0123456789"
# Variants of a split speak in no other.
SPEAKERS = {"train": 26, "dev": 6, "test": 12}


def speakers(split: str) -> list[str]:
    """The espeak-ng variants of a split, the same for every language."""
    order = random.Random(0).sample(synthesis.VARIANTS, len(synthesis.VARIANTS))
    first = sum(count for name, count in SPEAKERS.items() if list(SPEAKERS).index(name) < _index(split))
    return order[first : first + SPEAKERS[split]]


def _index(split: str) -> int:
    return list(SPEAKERS).index(split)


def utterances(language: str, split: str) -> list[synthesis.Utterance]:
    """Every digit by every speaker of a split, each at a speed and pitch of its own."""
    rng = random.Random(f"{language} {split}")
    return [
        synthesis.Utterance(
            digit, synthesis.Voice(language, variant, speed=rng.randint(135, 190), pitch=rng.randint(25, 75))
        )
        for variant in speakers(split)
        for digit in DIGITS
    ]


def one_second(audio: NDArray[np.int16]) -> NDArray[np.int16]:
    """The clip in the middle of a second; of a longer one, its first second."""
    cut = audio[:SAMPLE_RATE]
    before = (SAMPLE_RATE - len(cut)) // 2
    return np.pad(cut, (before, SAMPLE_RATE - len(cut) - before))


def write_language(language: str, parent: Path) -> None:
    """Writes one language's clips, then its manifest."""
    folder = parent / language
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for split in SPEAKERS:
        spoken = utterances(language, split)
        for utterance, audio in zip(spoken, synthesis.speak_all(spoken), strict=True):
            name = f"{utterance.voice.variant}-{utterance.text}.flac"
            soundfile.write(folder / name, one_second(audio), SAMPLE_RATE)
            rows.append((name, utterance.voice.variant, split, f"{language}-{utterance.text}"))
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "speaker", "split", "label"))
        writer.writerows(rows)


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Write spoken digits in five languages.")
    parser.add_argument("--out", type=Path, required=True, help="folder; a language that is there is kept")
    out = parser.parse_args().out
    for language in LANGUAGES:
        if not (out / language / "manifest.csv").exists():
            write_language(language, out)
            print(out / language, flush=True)


if __name__ == "__main__":
    main()
