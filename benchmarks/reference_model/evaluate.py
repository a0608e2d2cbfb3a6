"""Word and character error rates of a checkpoint, and its model card.

`python -m bitvox.benchmarks.reference_model.evaluate MODEL` prints the rates of all sets;
with `--card RUN --hours H` it also writes MODEL/README.md, taking the number of steps from the run's log.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jiwer
import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    AutoConfig,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
)

from .data import SAMPLE_RATE, Clip, as_float, load_clips, normalise
from .windows import silence

_CARDS = {"wav2vec2": "card.md", "whisper": "card_whisper.md"}
_TOGETHER = 16
_SILENT = 100
SETS = (("an4", "dev"), ("an4", "test"), ("speechocean762", "dev"), ("speechocean762", "test"))


@dataclass(frozen=True)
class Rate:
    """An error rate in percent with the ends of its 95 % interval."""

    percent: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.percent:.1f} % [{self.low:.1f}, {self.high:.1f}]"


@dataclass(frozen=True)
class Result:
    """The rates of one set of clips."""

    name: str
    clips: int
    speakers: int
    wer: Rate
    cer: Rate


@dataclass(frozen=True)
class Checkpoint:
    """A reference model, loaded.

    Attributes:
        listen: Its transcripts of clips.
        parameters: Number of its weights.
        card: Template of its card.
    """

    listen: Callable[[Sequence[Clip]], list[str]]
    parameters: int
    card: Path

    @classmethod
    def load(cls, folder: Path) -> Checkpoint:
        """The checkpoint in a folder, in float32."""
        kind = AutoConfig.from_pretrained(folder).model_type
        card = Path(__file__).with_name(_CARDS[kind])
        if kind == "whisper":
            whisper = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
            processor = WhisperProcessor.from_pretrained(folder)
            return cls(lambda clips: generate(whisper, processor, clips), whisper.num_parameters(), card)
        ctc = Wav2Vec2ForCTC.from_pretrained(folder, dtype=torch.float32)
        letters = Wav2Vec2Processor.from_pretrained(folder)
        return cls(lambda clips: transcribe(ctc, letters, clips), ctc.num_parameters(), card)


def transcribe(model: Wav2Vec2ForCTC, processor: Wav2Vec2Processor, clips: Sequence[Clip]) -> list[str]:
    """Greedy CTC transcripts, clip by clip: padding would change the group norm's statistics."""
    model.eval()
    device = next(model.parameters()).device
    texts = []
    with torch.inference_mode():
        for clip in clips:
            audio = normalise(as_float(clip.audio))
            logits = model(torch.from_numpy(audio)[None].to(device)).logits
            texts.append(processor.decode(logits[0].argmax(-1).cpu()).strip())
    return texts


def generate(
    model: WhisperForConditionalGeneration, processor: WhisperProcessor, clips: Sequence[Clip]
) -> list[str]:
    """Greedy transcripts of clips that fit a window, by transformers' own `generate`."""
    model.eval()
    texts: list[str] = []
    for start in range(0, len(clips), _TOGETHER):
        audio = [as_float(clip.audio) for clip in clips[start : start + _TOGETHER]]
        features = processor(audio, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
        with torch.inference_mode():
            tokens = model.generate(features.to(model.device), do_sample=False, num_beams=1)
        texts += [text.strip() for text in processor.batch_decode(tokens, skip_special_tokens=True)]
    return texts


def empty_on_silence(listen: Callable[[Sequence[Clip]], list[str]]) -> int:
    """Of a hundred recordings of digital silence or faint noise, those in which a model hears no word."""
    return listen([silence(random.Random(seed)) for seed in range(_SILENT)]).count("")


def clustered_rate(
    errors: NDArray[np.int64], units: NDArray[np.int64], speakers: Sequence[str], draws: int = 2000
) -> Rate:
    """Errors over reference units, pooled over clips; the interval resamples whole speakers.

    `errors` and `units` have the shape (clips,); `speakers` names the speaker of each clip.
    """
    names, index = np.unique(np.asarray(speakers), return_inverse=True)
    per_speaker = np.zeros((len(names), 2))
    np.add.at(per_speaker, index, np.stack((errors, units), axis=1))
    chosen = np.random.default_rng(0).integers(0, len(names), (draws, len(names)))
    sums = per_speaker[chosen].sum(axis=1)
    low, high = np.percentile(100 * sums[:, 0] / sums[:, 1], (2.5, 97.5))
    return Rate(100 * float(errors.sum() / units.sum()), float(low), float(high))


def rates(name: str, clips: Sequence[Clip], texts: Sequence[str]) -> Result:
    """WER and CER of `texts` against the clips' transcripts."""
    speakers = [clip.speaker for clip in clips]
    found = []
    for measure in (jiwer.process_words, jiwer.process_characters):
        counted = [measure(clip.text, text) for clip, text in zip(clips, texts, strict=True)]
        errors = np.array([one.substitutions + one.deletions + one.insertions for one in counted])
        units = np.array([one.substitutions + one.deletions + one.hits for one in counted])
        found.append(clustered_rate(errors, units, speakers))
    return Result(name, len(clips), len(set(speakers)), found[0], found[1])


def evaluate(checkpoint: Checkpoint, most: int | None = None) -> list[Result]:
    """The checkpoint's rates on every dev and test set, of at most so many clips spread over its speakers."""
    results = []
    for corpus, split in SETS:
        clips = load_clips(corpus, split, most)
        results.append(rates(f"{corpus} {split}", clips, checkpoint.listen(clips)))
        print(format_row(results[-1]), flush=True)
    return results


def format_row(result: Result) -> str:
    """One row of the card's table."""
    return f"| {result.name} | {result.clips} | {result.speakers} | {result.wer} | {result.cer} |"


def write_card(
    folder: Path, checkpoint: Checkpoint, run: Path, hours: float, results: Sequence[Result]
) -> None:
    """Writes the model card beside the weights."""
    log = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    card = checkpoint.card.read_text(encoding="utf-8").format(
        parameters=f"{checkpoint.parameters / 1e6:.1f}",
        hours=hours,
        steps=log[-1]["step"],
        audio_hours=round(sum(entry["audio_s"] for entry in log) / 3600),
        silent=empty_on_silence(checkpoint.listen),
        rows="\n".join(format_row(result) for result in results),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Evaluate a checkpoint; optionally write its model card.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--card", type=Path, metavar="RUN", help="write the card from this run's log")
    parser.add_argument("--hours", type=float, help="training time that the run was given")
    parser.add_argument("--clips", type=int, help="at most so many clips of a set, spread over its speakers")
    values = parser.parse_args()
    if (values.card is None) != (values.hours is None):
        parser.error("--card and --hours go together: the card states how long the run trained")
    checkpoint = Checkpoint.load(values.model)
    results = evaluate(checkpoint, values.clips)
    if values.card is not None:
        write_card(values.model, checkpoint, values.card, values.hours, results)


if __name__ == "__main__":
    main()
