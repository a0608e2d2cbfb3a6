"""Writes the demo's sample voices: `python -m bitvox.benchmarks.reference_model.make_voices`.

Two synthetic speakers whose espeak-ng variants no training clip uses. Texts and samples are the same on
every run; only the stream number that the Ogg container draws at random differs.
"""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass
from pathlib import Path

from . import synthesis
from .data import REPOSITORY

VOICES_FOLDER = REPOSITORY / "bitvox" / "assets" / "voices"
SPLITS = ("train",) * 12 + ("dev",) * 4 + ("test",) * 8
# None of these is among the names that the training texts spell.
SPELLED = synthesis.words_of(
    "ABIGAIL BENEDICT CLEMENTINE DESMOND EVELYN FELICITY GREGORY HARRIET IGNATIUS JULIETTE KILLIAN LEOPOLD "
    "MIRIAM NATHANIEL OTTILIE QUENTIN ROSALIND SYLVESTER THEODORE URSULA VALENTINE WINIFRED YOLANDA ZACHARY"
)


@dataclass(frozen=True)
class SampleVoice:
    """A demo speaker: folder name, gender for the manifest, voice setting, seed of the texts."""

    folder: str
    gender: str
    voice: synthesis.Voice
    seed: int


SAMPLE_VOICES = (
    SampleVoice("nora", "f", synthesis.Voice("en-us", "f3", speed=135, pitch=58, gap=3), seed=15),
    SampleVoice("otto", "m", synthesis.Voice("en-us", "m3", speed=120, pitch=30, gap=4), seed=16),
)


def sample_texts(seed: int) -> list[str]:
    """24 short texts in a mixed order: spelled names, numbers, letters with numbers, and dates."""
    rng = random.Random(seed)
    names = rng.sample(SPELLED, 8)
    texts = [" ".join(name) for name in names]
    texts += [" ".join(rng.choice(synthesis.DIGITS) for _ in range(7)) for _ in range(4)]
    texts += [f"ENTER {synthesis.number_words(rng)}" for _ in range(3)]
    for prefix in ("RUBOUT", "ERASE", ""):
        letters = " ".join(rng.sample(synthesis.LETTERS, 4))
        texts.append(f"{prefix} {letters} {synthesis.number_words(rng)}".strip())
    for _ in range(6):
        date = (synthesis.ORDINALS, synthesis.TENS, synthesis.MONTHS, synthesis.DIGITS[1:10])
        day, ten, month, unit = (rng.choice(words) for words in date)
        texts.append(f"{month} {day} NINETEEN {ten} {unit}")
    rng.shuffle(texts)
    return texts


def write_voice(sample: SampleVoice, parent: Path) -> None:
    """Writes one voice's clips and manifest under `parent`."""
    folder = parent / sample.folder
    folder.mkdir(parents=True, exist_ok=True)
    texts = sample_texts(sample.seed)
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "speaker", "gender", "split", "seconds", "text"))
        for number, (text, split) in enumerate(zip(texts, SPLITS, strict=True), start=1):
            audio = synthesis.speak(synthesis.Utterance(text, sample.voice))
            name = f"{sample.folder}-{number:02}.ogg"
            synthesis.write_audio(str(folder / name), audio)
            seconds = f"{len(audio) / synthesis.SAMPLE_RATE:.2f}"
            writer.writerow((name, sample.folder, sample.gender, split, seconds, text))
    (folder / "README.md").write_text(card(sample), encoding="utf-8")


def card(sample: SampleVoice) -> str:
    """The voice's README."""
    voice = sample.voice
    return f"""# {sample.folder}: a synthetic voice

24 short utterances for `make demo`, 16 kHz mono Ogg Opus, listed in `manifest.csv` (12 train, 4 dev, 8 test).
**Nobody speaks here**: espeak-ng (variant `{voice.name}+{voice.variant}`, {voice.speed} words per minute,
pitch {voice.pitch}, word gap {voice.gap * 10} ms) made every clip, through `make_voices.py` of the folder
`benchmarks/reference_model/`. The program is licensed under GPL-3.0-or-later; what it says is not covered by
that licence, and these clips come under the repository's own. A result on this voice shows that the tool
works, not how well it serves people.

The reference model was trained on other espeak-ng voices; this variant and these texts were held out.
"""


if __name__ == "__main__":
    for sample_voice in SAMPLE_VOICES:
        write_voice(sample_voice, VOICES_FOLDER)
