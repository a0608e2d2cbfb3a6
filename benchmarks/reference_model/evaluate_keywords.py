"""Accuracy of a keyword model on the speakers that it was never taught, and its model card.

`python -m bitvox.benchmarks.reference_model.evaluate_keywords MODEL --half first` prints the accuracies; with
`--card RUN --hours H` it also writes MODEL/README.md, taking the number of steps from the run's log.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from transformers import Wav2Vec2ConformerForSequenceClassification

from bitvox.benchmarks import metrics

from .data import Clip, as_float, normalise
from .train_keywords import Half, load_commands, other_half

_CARD = Path(__file__).with_name("card_keywords.md")
_TOGETHER = 40


@torch.inference_mode()
def recognise(model: Wav2Vec2ConformerForSequenceClassification, clips: Sequence[Clip]) -> list[str]:
    """Labels of clips of one length, in float32."""
    model.eval()
    labels = [label for _, label in sorted((model.config.id2label or {}).items())]
    found = []
    for start in range(0, len(clips), _TOGETHER):
        audio = np.stack([normalise(as_float(clip.audio)) for clip in clips[start : start + _TOGETHER]])
        found += [labels[index] for index in model(torch.from_numpy(audio)).logits.argmax(-1)]
    return found


def accuracy_rows(clips: Sequence[Clip], labels: Sequence[str]) -> list[str]:
    """Rows of the card's table: all speakers, then each of them."""
    speakers = sorted({clip.speaker for clip in clips})
    rows = []
    for name, members in [
        (f"all {len(speakers)}", speakers),
        *((speaker, [speaker]) for speaker in speakers),
    ]:
        chosen = [(clip, label) for clip, label in zip(clips, labels, strict=True) if clip.speaker in members]
        counts = metrics.count_labels([clip.text for clip, _ in chosen], [label for _, label in chosen])
        right = len(chosen) - int(counts.errors.sum())
        exact = metrics.exact_share(right, len(chosen))
        clustered = metrics.accuracy(counts, [clip.speaker for clip, _ in chosen])
        over = f"[{clustered.low:.1f}, {clustered.high:.1f}]" if len(members) > 1 else ""
        share = f"{right} ({exact.percent:.1f} %)"
        rows.append(f"| {name} | {len(chosen)} | {share} | [{exact.low:.1f}, {exact.high:.1f}] | {over} |")
    return rows


def write_card(
    folder: Path, half: Half, run: Path, hours: float, strangers: int, rows: Sequence[str]
) -> None:
    """Writes the model card beside the weights."""
    log = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    taught = load_commands(half)
    names = sorted({clip.speaker for clip in taught})
    model = Wav2Vec2ConformerForSequenceClassification.from_pretrained(folder)
    card = _CARD.read_text(encoding="utf-8").format(
        name=folder.name,
        parameters=f"{model.num_parameters() / 1e6:.1f}",
        strangers=strangers,
        rows="\n".join(rows),
        taught=", ".join(name.lstrip("0") for name in names),
        clips=f"{len(taught):,}",
        count=len(names),
        half=half,
        hours=hours,
        steps=f"{log[-1]['step']:,}",
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Evaluate a keyword model; optionally write its card.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--half", choices=get_args(Half), required=True, help="speakers that it was taught")
    parser.add_argument("--card", type=Path, metavar="RUN", help="write the card from this run's log")
    parser.add_argument("--hours", type=float, help="training time that the run was given")
    values = parser.parse_args()
    if (values.card is None) != (values.hours is None):
        parser.error("--card and --hours go together: the card states how long the run trained")
    model = Wav2Vec2ConformerForSequenceClassification.from_pretrained(values.model, dtype=torch.float32)
    clips = load_commands(other_half(values.half))
    rows = accuracy_rows(clips, recognise(model, clips))
    print("\n".join(rows))
    if values.card is not None:
        strangers = len({clip.speaker for clip in clips})
        write_card(values.model, values.half, values.card, values.hours, strangers, rows)


if __name__ == "__main__":
    main()
