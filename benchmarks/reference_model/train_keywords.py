"""Trains a reference keyword model.

`python -m bitvox.benchmarks.reference_model.train_keywords --half first --out RUN --hours H`

A wav2vec2-conformer of 2.2 M parameters from random weights. Of the twenty speakers every other one is
taught and the rest is left to test on: `--half first` and `--half second` make two models, and each speaker
is a stranger to one of them. Nothing is chosen on the speakers left out: what ships are the averaged weights
at the end of the run.
"""

from __future__ import annotations

import copy
import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import soxr
import torch
from torch.nn import functional
from transformers import (
    PreTrainedModel,
    Wav2Vec2ConformerConfig,
    Wav2Vec2ConformerForSequenceClassification,
    Wav2Vec2FeatureExtractor,
)

from .data import SAMPLE_RATE, Audio, Clip, as_float, coloured_noise, normalise, read_clip, shared_folder
from .training import Recipe, Settings, Trainer, argument_parser, device, join_processes

CORPUS = "arabic_commands"
BATCH = 32
LABEL_SMOOTHING = 0.05
Half = Literal["first", "second"]


@dataclass(frozen=True)
class Commands:
    """One-second clips: `audio` (clips, samples) float32, and the label of each row."""

    audio: Audio
    labels: tuple[int, ...]

    @property
    def seconds(self) -> float:
        """Audio of all clips."""
        return self.audio.size / SAMPLE_RATE


def taught_speakers(speakers: Sequence[str], half: Half) -> list[str]:
    """The speakers that the model of a half is taught: every other one in the order of their names."""
    return sorted(set(speakers))[get_args(Half).index(half) :: 2]


def other_half(half: Half) -> Half:
    """The half that the model of this one is tested on."""
    return "second" if half == "first" else "first"


def load_commands(half: Half) -> list[Clip]:
    """The clips of the speakers that the model of a half is taught, their keywords as texts."""
    folder = shared_folder("speech", "BITVOX_SPEECH") / CORPUS
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    taught = taught_speakers([row["speaker"] for row in rows], half)
    return [
        read_clip(folder / row["path"], row["keyword"], row["speaker"])
        for row in rows
        if row["speaker"] in taught
    ]


def build_config(labels: Sequence[str]) -> Wav2Vec2ConformerConfig:
    """A small wav2vec2-conformer with relative positions and one output for each label."""
    config = Wav2Vec2ConformerConfig(
        # Four convolutions to a frame of 40 ms: a step takes a third of that with seven to 20 ms.
        conv_dim=(48, 96, 144, 144),
        conv_kernel=(16, 10, 8, 4),
        conv_stride=(8, 5, 4, 4),
        feat_extract_norm="group",
        hidden_size=144,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=576,
        hidden_act="swish",
        conv_depthwise_kernel_size=15,
        max_source_positions=1024,
        # In every checkpoint of this class, and never run: as small as it may be.
        num_conv_pos_embeddings=2,
        classifier_proj_size=144,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        hidden_dropout=0.0,
        conformer_conv_dropout=0.0,
        feat_proj_dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        final_dropout=0.0,
        layerdrop=0.0,
        mask_time_prob=0.08,
        mask_time_length=2,
        mask_time_min_masks=1,
        mask_feature_prob=0.05,
        mask_feature_length=8,
    )
    # On short clips the plain products of eager attention are faster on a CPU than the fused kernel.
    config._attn_implementation = "eager"
    return config


class Float32Convolution(torch.nn.Conv1d):
    """A convolution outside autocast: in bfloat16 a grouped one is wrong on CPUs with AMX."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """As its parent, in float32."""
        with torch.autocast(hidden.device.type, enabled=False):
            return super().forward(hidden.float())


def build_classifier(labels: Sequence[str]) -> Wav2Vec2ConformerForSequenceClassification:
    """The model with random weights, ready to train."""
    config = build_config(labels)
    model = Wav2Vec2ConformerForSequenceClassification(config).float()
    for layer in model.wav2vec2_conformer.encoder.layers:
        block = layer.conv_module
        own = block.depthwise_conv
        block.depthwise_conv = Float32Convolution(
            own.in_channels,
            own.out_channels,
            config.conv_depthwise_kernel_size,
            padding=own.padding,
            groups=own.groups,
            bias=False,
        )
    return model


def rendered(clip: Clip, rng: np.random.Generator) -> Audio:
    """One random rendering of a clip: speed, spectral tilt, place within a second, noise; normalised."""
    speed = rng.uniform(0.85, 1.15)
    audio = soxr.resample(as_float(clip.audio), SAMPLE_RATE, SAMPLE_RATE / speed, quality="QQ")
    audio[1:] += rng.uniform(-0.7, 0.7) * audio[:-1]
    before, after = rng.integers(0, SAMPLE_RATE // 5, 2)
    audio = np.pad(audio, (before, after))
    start = int(rng.integers(0, max(1, len(audio) - SAMPLE_RATE + 1)))
    audio = audio[start : start + SAMPLE_RATE]
    audio = np.pad(audio, (0, SAMPLE_RATE - len(audio)))
    level = np.sqrt(np.mean(audio**2)) * 10 ** (-rng.uniform(8, 40) / 20)
    return normalise(audio + level * coloured_noise(SAMPLE_RATE, rng))


class KeywordRecipe(Recipe[Commands]):
    """A classifier of clips by their texts; `build` makes it for their labels."""

    model: PreTrainedModel

    def __init__(
        self,
        settings: Settings,
        clips: Sequence[Clip],
        build: Callable[[Sequence[str]], PreTrainedModel] = build_classifier,
    ) -> None:
        torch.manual_seed(settings.seed)
        self.clips = clips
        self.labels = sorted({clip.text for clip in clips})
        self.model = build(self.labels)
        self.model.to(device())  # type: ignore[arg-type]  # transformers wraps it without its types
        self.heads = torch.nn.Module()

    def losses(self, batch: Commands, progress: float) -> dict[str, torch.Tensor]:
        """Cross entropy of the keywords."""
        with torch.autocast(device().type, dtype=torch.bfloat16):
            logits = self.model(torch.from_numpy(batch.audio).to(device())).logits
        labels = torch.tensor(batch.labels, device=logits.device)
        return {"loss": functional.cross_entropy(logits.float(), labels, label_smoothing=LABEL_SMOOTHING)}

    def batches(self, number: int, late: bool) -> Iterator[Commands]:
        """Every clip once, in a random order; what remains of a last batch is left out."""
        rng = np.random.default_rng(number)
        order = rng.permutation(len(self.clips))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            drawn = [self.clips[index] for index in order[start : start + BATCH]]
            audio = np.stack([rendered(clip, rng) for clip in drawn])
            yield Commands(audio, tuple(self.labels.index(clip.text) for clip in drawn))

    def export(self, model: torch.nn.Module, folder: Path) -> None:
        """Writes model and feature extractor."""
        assert isinstance(model, PreTrainedModel)
        copy.deepcopy(model).half().cpu().save_pretrained(folder)
        Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)


def main() -> None:
    """Command line of this module."""
    parser = argument_parser("Train a reference keyword model.")
    parser.add_argument("--half", choices=get_args(Half), required=True, help="speakers that are taught")
    values = parser.parse_args()
    join_processes()
    # From random weights, unlike the CTC model, so the rates are higher; and over fewer steps.
    rates = {"adam_peak": 1e-3, "muon_peak": 1.6e-3}
    settings = Settings(values.out, values.hours, values.seed, **rates, ema_decay=0.998)
    settings.out.mkdir(parents=True, exist_ok=True)
    Trainer(settings, KeywordRecipe(settings, load_commands(values.half))).run()


if __name__ == "__main__":
    main()
