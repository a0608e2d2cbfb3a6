"""Trains the reference model: `python -m bitvox.benchmarks.reference_model.train --out RUN --hours H`.

Start: `--init` names the folder of a wav2vec2 checkpoint whose encoder (and CTC head, if it has one)
starts the model; by default `first-ctc-english` of the shared models. From random weights
(`--init none`) CTC can stay for long on the plateau where everything is blank, so train a keyword classifier
of this structure first (`Wav2Vec2ForSequenceClassification` on one-second clips, AdamW 8e-4 with
cosine decay, 15 minutes on two cores) and pass its folder to `--init`: all but the head is taken.

On a CPU that others share, `torchrun --nproc-per-node 2 -m ...` with OMP_NUM_THREADS=1 is faster than one
process with two threads: the two wait for each other once a step instead of at every operation.

Stopping and starting again with the same `--out` resumes. The learning rate and the mixture follow the
training time used, so a slower machine makes fewer steps rather than an unfinished schedule.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jiwer
import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch.nn import functional
from transformers import Wav2Vec2Config, Wav2Vec2ForCTC, Wav2Vec2Processor
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2PositionalConvEmbedding
from transformers.utils import logging as transformers_logging

from .data import (
    REPOSITORY,
    SAMPLE_RATE,
    Batch,
    Clip,
    JoinedClips,
    Mixture,
    load_clips,
    shared_folder,
    synthetic_clips,
)
from .evaluate import transcribe
from .splicing import WordStock, cut_words
from .synthesis import PhonemeTable

ASSETS = REPOSITORY / "bitvox" / "assets" / "reference-ctc"
EVALUATE_EVERY_S = 360.0
SAVE_EVERY_S = 150.0
PHONEME_LAYER = 4
PHONEME_WEIGHT = 0.5
ADAM_PEAK = 5e-4
MUON_PEAK = 8e-4
# Shares of the draws; the last part of the time goes to the domain that the model is measured on.
EARLY = {"an4": 0.24, "spliced": 0.30, "speechocean762": 0.18, "spelling": 0.20, "sentences": 0.08}
LATE = {"an4": 0.36, "spliced": 0.30, "speechocean762": 0.12, "spelling": 0.18, "sentences": 0.04}


@dataclass(frozen=True)
class Settings:
    """What the recipe was run with; `hours` is training time on this machine, evaluation included."""

    out: Path
    init: str
    hours: float
    seed: int
    warm_up: float = 0.05
    late_from: float = 0.75
    ema_decay: float = 0.999
    spelling: int = 4000
    sentences: int = 2500


def rate_factor(settings: Settings, progress: float) -> float:
    """Learning rate over its peak: linear warm-up, then cosine decay; `progress` runs from 0 to 1."""
    if progress < settings.warm_up:
        return 0.05 + 0.95 * progress / settings.warm_up
    angle = math.pi * min(1.0, (progress - settings.warm_up) / (1 - settings.warm_up))
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(angle))


def build_optimisers(model: torch.nn.Module, head: torch.nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the encoder's matrices, AdamW for everything else; `peak` is each group's highest rate."""
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_matrix = parameter.dim() == 2 and ".layers." in name
        (matrices if is_matrix else others).append(parameter)
    adam = [
        {"params": [p for p in others if p.dim() > 1], "weight_decay": 0.01, "peak": ADAM_PEAK},
        {"params": [p for p in others if p.dim() <= 1], "weight_decay": 0.0, "peak": ADAM_PEAK},
        {"params": list(head.parameters()), "weight_decay": 0.0, "peak": 3 * ADAM_PEAK},
    ]
    result: list[torch.optim.Optimizer] = [torch.optim.AdamW(adam, lr=ADAM_PEAK, betas=(0.9, 0.98))]
    muon = [{"params": matrices, "peak": MUON_PEAK}]
    result.append(torch.optim.Muon(muon, lr=MUON_PEAK, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"))
    return result


class Float32PositionalEmbedding(Wav2Vec2PositionalConvEmbedding):
    """The positional convolution outside autocast: in bfloat16 a grouped one is wrong on CPUs with AMX."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """As its parent, in float32."""
        with torch.autocast(hidden_states.device.type, enabled=False):
            return super().forward(hidden_states.float())


def build_model(init: str) -> Wav2Vec2ForCTC:
    """The model in the shipped structure with the weights of `init` ("none": random) that fit it."""
    config = Wav2Vec2Config.from_pretrained(ASSETS)
    config.mask_time_prob, config.mask_time_length, config.mask_time_min_masks = 0.10, 6, 1
    config.mask_feature_prob, config.mask_feature_length = 0.05, 8
    # The drawing of dropout masks for the widest activations costs more time than it is worth here.
    config.attention_dropout = config.activation_dropout = config.layerdrop = 0.0
    config.dtype = "float32"
    # On short clips the plain products of eager attention are faster on a CPU than the fused kernel.
    config._attn_implementation = "eager"
    model = Wav2Vec2ForCTC(config).float()
    model.wav2vec2.encoder.pos_conv_embed = Float32PositionalEmbedding(config)
    if init != "none":
        own = model.state_dict()
        weights = load_file(Path(init) / "model.safetensors")
        fitting = {k: v.float() for k, v in weights.items() if k in own and own[k].shape == v.shape}
        missing = {key for key in own if key not in fitting and not key.startswith("lm_head")}
        if missing:
            raise ValueError(f"{init}: weights missing or of another shape, such as {sorted(missing)[0]}")
        model.load_state_dict(fitting, strict=False)
        freeze_first_convolutions(model)
    return model


def freeze_first_convolutions(model: Wav2Vec2ForCTC, layers: int = 2) -> None:
    """Keeps the first filters as they are: nearly a third of a step's time, and learned already."""
    extractor = model.wav2vec2.feature_extractor
    extractor.conv_layers[:layers].requires_grad_(False)
    # Else transformers asks for the gradient of the waveform and with it of every frozen layer.
    extractor._requires_grad = False


def ctc_loss(logits: torch.Tensor, labels: Sequence[Sequence[int]]) -> torch.Tensor:
    """Mean CTC loss per label in float32; `logits` has the shape (clips, frames, classes)."""
    scores = functional.log_softmax(logits.float(), dim=-1).transpose(0, 1)
    frames = torch.full((len(labels),), scores.shape[0])
    lengths = torch.tensor([len(row) for row in labels])
    targets = torch.tensor([token for row in labels for token in row], device=logits.device)
    return functional.ctc_loss(scores, targets, frames, lengths, blank=0, zero_infinity=True)


def prefetched(make: Callable[[], Iterator[Batch]], ahead: int = 24) -> Iterator[Batch]:
    """The endless batches of `make()`, drawn by a thread so that augmentation fills idle time."""
    waiting: queue.Queue[Batch | Exception] = queue.Queue(ahead)

    def fill() -> None:
        try:
            for batch in make():
                waiting.put(batch)
        except Exception as error:  # raised where the batch is waited for
            waiting.put(error)

    threading.Thread(target=fill, daemon=True).start()
    while True:
        batch = waiting.get()
        if isinstance(batch, Exception):
            raise batch
        yield batch


class Trainer:
    """The state of one run: model, averaged model, optimiser, and the training time used."""

    def __init__(self, settings: Settings, phonemes: PhonemeTable) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.phonemes = settings, phonemes
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = build_model(settings.init)
        self.model.to(self.device)  # type: ignore[arg-type]  # transformers wraps it without its types
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.processor = Wav2Vec2Processor.from_pretrained(ASSETS)
        self.phoneme_head = torch.nn.Linear(self.model.config.hidden_size, phonemes.size).to(self.device)
        self.optimisers = build_optimisers(self.model, self.phoneme_head)
        self.step, self.pool, self.used_s, self.best = 0, 0, 0.0, math.inf
        self.unshared_s = 0.0
        # Masks and dropout must differ between the processes, the initial weights must not.
        torch.manual_seed(settings.seed * 1009 + self.rank)
        np.random.seed(settings.seed * 1009 + self.rank)  # noqa: NPY002 - transformers draws masks from it
        self.checkpoint = settings.out / "checkpoint.pt"

    @property
    def progress(self) -> float:
        """Share of the training time used, 0 to 1."""
        return min(1.0, self.used_s / (self.settings.hours * 3600))

    def save(self) -> None:
        """Writes the state so that a stop at any moment leaves a whole file."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "phoneme_head": self.phoneme_head.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "counters": (self.step, self.pool, self.used_s, self.best),
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self.checkpoint)

    def resume(self) -> None:
        """Takes up the saved state, if there is one."""
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self.phoneme_head.load_state_dict(state["phoneme_head"])
            for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
                optimiser.load_state_dict(saved)
            self.step, self.pool, self.used_s, self.best = state["counters"]

    def losses(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """CTC losses of the characters at the output and of the phonemes at a middle layer.

        Phonemes follow the sound more closely than English spelling does: their loss teaches the
        lower layers in a fraction of the steps that the characters alone would take.
        """
        audio = torch.from_numpy(batch.audio).to(self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            output = self.model(audio, output_hidden_states=True)
            hidden = output.hidden_states[PHONEME_LAYER]
            # A head that knows nothing yet would undo what the layers below it know.
            taught = hidden.detach() if self.progress < self.settings.warm_up else hidden
            phoneme_logits = self.phoneme_head(taught)
        labels = [self.processor.tokenizer(text).input_ids for text in batch.texts]
        sounds = [self.phonemes.encode(text) for text in batch.texts]
        return ctc_loss(output.logits, labels), ctc_loss(phoneme_logits, sounds)

    def update(self, batch: Batch) -> tuple[float, float]:
        """One optimiser step; returns the character and the phoneme loss."""
        self.model.train()
        factor = rate_factor(self.settings, self.progress)
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * factor
        characters, sounds = self.losses(batch)
        (characters + PHONEME_WEIGHT * sounds).backward()
        self.share_gradients()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        if torch.isfinite(norm):
            for optimiser in self.optimisers:
                optimiser.step()
        self.step += 1
        decay = min(self.settings.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            averaged: list[torch.Tensor] = list(self.average.parameters())
            current: list[torch.Tensor] = list(self.model.parameters())
            torch._foreach_lerp_(averaged, current, 1 - decay)
        return characters.item(), sounds.item()

    def share_gradients(self) -> None:
        """Averages the gradients over the processes of the run, and advances their common clock."""
        if self.world == 1:
            self.used_s += self.unshared_s
            return
        parameters = [
            p for p in (*self.model.parameters(), *self.phoneme_head.parameters()) if p.requires_grad
        ]
        # A parameter that a batch left out (the mask's embedding, when nothing was masked) has no gradient.
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        used = torch.tensor([self.unshared_s], device=self.device)
        flat = torch.cat([gradient.flatten() for gradient in gradients] + [used])
        dist.all_reduce(flat)
        flat /= self.world
        self.used_s += float(flat[-1])
        parts = flat[:-1].split([gradient.numel() for gradient in gradients])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def evaluate(self, dev: dict[str, list[Clip]]) -> dict[str, float]:
        """Dev WER in percent of the averaged weights; keeps the best by AN4 in `best/`."""
        rates = {}
        for name, clips in dev.items():
            texts = transcribe(self.average, self.processor, clips)
            rates[name] = 100 * jiwer.wer([clip.text for clip in clips], texts)
        if rates["an4"] <= self.best:
            self.best = rates["an4"]
            export(self.average, self.processor, self.settings.out / "best")
        return rates


def export(model: Wav2Vec2ForCTC, processor: Wav2Vec2Processor, folder: Path) -> None:
    """Writes a checkpoint in the hub's layout with weights in float16."""
    copy.deepcopy(model).half().cpu().save_pretrained(folder)
    processor.save_pretrained(folder)


def load_sources(settings: Settings) -> dict[str, list[Clip]]:
    """The training clips of all sources in memory; synthetic speech is made on the first run."""
    real = {name: load_clips(name, "train") for name in ("an4", "speechocean762")}
    transcripts = [clip.text for clip in real["speechocean762"]]
    store = settings.out / "synthetic.npz"
    spelling, sentences = synthetic_clips(
        store, settings.seed, settings.spelling, settings.sentences, transcripts
    )
    return {**real, "spelling": spelling, "sentences": sentences}


def drawers(sources: dict[str, list[Clip]], trainer: Trainer) -> dict[str, Callable[[random.Random], Clip]]:
    """How a clip is drawn from each source; the words to splice are cut by the starting checkpoint."""
    aligner = Wav2Vec2ForCTC.from_pretrained(trainer.settings.init, dtype=torch.float32)
    stock = WordStock(cut_words(sources["an4"], aligner, trainer.processor))
    plain = {
        name: (lambda rng, clips=clips: rng.choice(clips)) for name, clips in sources.items() if name != "an4"
    }
    return {**plain, "an4": JoinedClips(sources["an4"], 0.3).draw, "spliced": stock.draw}


def training_batches(trainer: Trainer, mixture: Mixture) -> Iterator[Batch]:
    """Endless batches, seeded by the number of the pool that they are drawn from."""
    while True:
        weights = EARLY if trainer.progress < trainer.settings.late_from else LATE
        number = trainer.pool * trainer.world + trainer.rank
        yield from mixture.batches(weights, trainer.settings.seed * 1_000_003 + number)
        trainer.pool += 1


def train(settings: Settings) -> None:
    """Runs or resumes the recipe; leaves `best/` and `final/` in the run folder."""
    settings.out.mkdir(parents=True, exist_ok=True)
    sources = load_sources(settings)
    dev = {"an4": load_clips("an4", "dev"), "speechocean762": load_clips("speechocean762", "dev", 60)}
    trainer = Trainer(settings, PhonemeTable([clip.text for clips in sources.values() for clip in clips]))
    trainer.resume()
    mixture = Mixture(drawers(sources, trainer))
    last = time.monotonic()
    next_save, next_evaluation = last + SAVE_EVERY_S, last + EVALUATE_EVERY_S
    losses: list[tuple[float, float]] = []
    audio_s = 0.0
    for batch in prefetched(lambda: training_batches(trainer, mixture)):
        losses.append(trainer.update(batch))
        audio_s += batch.audio.size / SAMPLE_RATE
        now = time.monotonic()
        trainer.unshared_s, last = now - last, now
        if len(losses) % 50 == 0 and trainer.rank == 0:
            print(f"{trainer.progress:5.0%} step {trainer.step} loss {losses[-1][0]:.2f}", flush=True)
        if now >= next_save and trainer.rank == 0:
            trainer.save()
            next_save = now + SAVE_EVERY_S
        if (now >= next_evaluation or trainer.progress >= 1.0) and trainer.rank == 0:
            report(trainer, losses, audio_s * trainer.world, trainer.evaluate(dev))
            losses, audio_s, next_evaluation = [], 0.0, now + EVALUATE_EVERY_S
        if trainer.progress >= 1.0:
            break
    if trainer.rank == 0:
        trainer.save()
        export(trainer.average, trainer.processor, settings.out / "final")


def report(
    trainer: Trainer, losses: list[tuple[float, float]], audio_s: float, rates: dict[str, float]
) -> None:
    """Prints progress and appends it to `log.jsonl`."""
    characters, sounds = (sum(column) / len(column) for column in zip(*losses, strict=True))
    record = {
        "minutes": round(trainer.used_s / 60, 1),
        "step": trainer.step,
        "loss": round(characters, 3),
        "phoneme_loss": round(sounds, 3),
        "audio_s": round(audio_s),
        **{f"dev_wer_{name}": round(rate, 1) for name, rate in rates.items()},
    }
    line = json.dumps(record)
    print(f"{trainer.progress:5.0%} {line}", flush=True)
    with (trainer.settings.out / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def parse_arguments() -> Settings:
    """Settings from the command line."""
    parser = argparse.ArgumentParser(description="Train the reference CTC model.")
    parser.add_argument("--out", type=Path, required=True, help="run folder; an existing run is resumed")
    parser.add_argument("--hours", type=float, required=True, help="training time")
    parser.add_argument("--init", help='checkpoint folder or "none"; default: the shared first-ctc-english')
    parser.add_argument("--seed", type=int, default=1)
    values = parser.parse_args()
    init = values.init or str(shared_folder("models", "BITVOX_MODELS") / "first-ctc-english")
    return Settings(values.out, init, values.hours, values.seed)


if __name__ == "__main__":
    transformers_logging.set_verbosity_error()
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    train(parse_arguments())
