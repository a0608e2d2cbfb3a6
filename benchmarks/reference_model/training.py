"""What every recipe shares: the loop, its clock, checkpoints, an average of the weights, several processes.

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
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import jiwer
import numpy as np
import torch
import torch.distributed as dist
from torch.nn import functional
from transformers.utils import logging as transformers_logging

from .data import Clip, load_clips, synthetic_clips

EVALUATE_EVERY_S = 360.0
SAVE_EVERY_S = 150.0


@dataclass(frozen=True)
class Settings:
    """What a recipe is run with.

    Attributes:
        out: Run folder.
        hours: Training time on this machine, evaluation included.
        seed: Of everything that is drawn.
        adam_peak: Highest learning rate of AdamW; `muon_peak`: of Muon.
        warm_up: Share of the time in which the rate rises.
        late_from: Share of the time after which clips are drawn by the late mixture.
        ema_decay: Of the average of the weights, which is what ships.
    """

    out: Path
    hours: float
    seed: int
    adam_peak: float = 5e-4
    muon_peak: float = 8e-4
    warm_up: float = 0.05
    late_from: float = 0.75
    ema_decay: float = 0.999


class Timed(Protocol):
    """A batch that says how much audio it holds."""

    @property
    def seconds(self) -> float:
        """Audio, padding included."""
        ...


AnyBatch = TypeVar("AnyBatch", bound=Timed)


class Recipe(ABC, Generic[AnyBatch]):
    """One model to train.

    Attributes:
        model: What ships, averaged.
        heads: What only training needs.
    """

    model: torch.nn.Module
    heads: torch.nn.Module

    @abstractmethod
    def losses(self, batch: AnyBatch, progress: float) -> dict[str, torch.Tensor]:
        """Losses by name, weighted; their sum is minimised. `progress` is the share of the time used."""

    @abstractmethod
    def batches(self, number: int, late: bool) -> Iterator[AnyBatch]:
        """Batches from one pool of clips, seeded by the pool's number."""

    def dev_rates(self, model: torch.nn.Module) -> dict[str, float]:
        """Error rates in percent of an averaged model on dev sets; the first one chooses `best/`."""
        return {}

    @abstractmethod
    def export(self, model: torch.nn.Module, folder: Path) -> None:
        """Writes a checkpoint in the hub's layout with weights in float16."""


class TextRecipe(Recipe[AnyBatch]):
    """A model that writes down what it hears, chosen by its WER on AN4 dev."""

    @abstractmethod
    def transcribe(self, model: torch.nn.Module, clips: Sequence[Clip]) -> list[str]:
        """What an averaged model makes of clips."""

    @cached_property
    def dev(self) -> dict[str, list[Clip]]:
        """The clips that it is judged on while it trains."""
        return {"an4": load_clips("an4", "dev"), "speechocean762": load_clips("speechocean762", "dev", 60)}

    def dev_rates(self, model: torch.nn.Module) -> dict[str, float]:
        """WER of each dev set."""
        return {
            f"dev_wer_{name}": 100 * jiwer.wer([clip.text for clip in clips], self.transcribe(model, clips))
            for name, clips in self.dev.items()
        }


def rate_factor(settings: Settings, progress: float) -> float:
    """Learning rate over its peak: linear warm-up, then cosine decay; `progress` runs from 0 to 1."""
    if progress < settings.warm_up:
        return 0.05 + 0.95 * progress / settings.warm_up
    angle = math.pi * min(1.0, (progress - settings.warm_up) / (1 - settings.warm_up))
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(angle))


def build_optimisers(
    model: torch.nn.Module, heads: torch.nn.Module, settings: Settings
) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for everything else; `peak` is each group's highest rate."""
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_matrix = parameter.dim() == 2 and ".layers." in name
        (matrices if is_matrix else others).append(parameter)
    peak = settings.adam_peak
    adam = [
        {"params": [p for p in others if p.dim() > 1], "weight_decay": 0.01, "peak": peak},
        {"params": [p for p in others if p.dim() <= 1], "weight_decay": 0.0, "peak": peak},
        {"params": list(heads.parameters()), "weight_decay": 0.0, "peak": 3 * peak},
    ]
    result: list[torch.optim.Optimizer] = [torch.optim.AdamW(adam, lr=peak, betas=(0.9, 0.98))]
    peak = settings.muon_peak
    muon = [{"params": matrices, "peak": peak}]
    result.append(torch.optim.Muon(muon, lr=peak, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"))
    return result


def ctc_loss(logits: torch.Tensor, labels: Sequence[Sequence[int]]) -> torch.Tensor:
    """Mean CTC loss per label in float32; `logits` has the shape (clips, frames, classes)."""
    scores = functional.log_softmax(logits.float(), dim=-1).transpose(0, 1)
    frames = torch.full((len(labels),), scores.shape[0])
    lengths = torch.tensor([len(row) for row in labels])
    targets = torch.tensor([token for row in labels for token in row], device=logits.device)
    return functional.ctc_loss(scores, targets, frames, lengths, blank=0, zero_infinity=True)


def load_sources(settings: Settings, spelling: int = 4000, sentences: int = 2500) -> dict[str, list[Clip]]:
    """The training clips of all sources in memory; synthetic speech is made on the first run."""
    real = {name: load_clips(name, "train") for name in ("an4", "speechocean762")}
    transcripts = [clip.text for clip in real["speechocean762"]]
    store = settings.out / "synthetic.npz"
    spoken = synthetic_clips(store, settings.seed, spelling, sentences, transcripts)
    return {**real, "spelling": spoken[0], "sentences": spoken[1]}


def prefetched(make: Callable[[], Iterator[AnyBatch]], ahead: int = 24) -> Iterator[AnyBatch]:
    """The endless batches of `make()`, drawn by a thread so that augmentation fills idle time."""
    waiting: queue.Queue[AnyBatch | Exception] = queue.Queue(ahead)

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


class Trainer(Generic[AnyBatch]):
    """The state of one run: model, averaged model, optimisers, and the training time used."""

    def __init__(self, settings: Settings, recipe: Recipe[AnyBatch]) -> None:
        self.settings, self.recipe = settings, recipe
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        self.device = next(recipe.model.parameters()).device
        self.average = copy.deepcopy(recipe.model).requires_grad_(False)
        self.optimisers = build_optimisers(recipe.model, recipe.heads, settings)
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
            "model": self.recipe.model.state_dict(),
            "average": self.average.state_dict(),
            "heads": self.recipe.heads.state_dict(),
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
            self.recipe.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self.recipe.heads.load_state_dict(state["heads"])
            for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
                optimiser.load_state_dict(saved)
            self.step, self.pool, self.used_s, self.best = state["counters"]

    def batches(self) -> Iterator[AnyBatch]:
        """Endless batches, pool after pool; no two processes draw the same."""
        while True:
            number = self.settings.seed * 1_000_003 + self.pool * self.world + self.rank
            yield from self.recipe.batches(number, self.progress >= self.settings.late_from)
            self.pool += 1

    def update(self, batch: AnyBatch) -> dict[str, float]:
        """One optimiser step; returns the losses by name."""
        model = self.recipe.model
        model.train()
        factor = rate_factor(self.settings, self.progress)
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * factor
        losses = self.recipe.losses(batch, self.progress)
        torch.stack(list(losses.values())).sum().backward()
        self.share_gradients()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if torch.isfinite(norm):
            for optimiser in self.optimisers:
                optimiser.step()
        self.step += 1
        decay = min(self.settings.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            averaged: list[torch.Tensor] = list(self.average.parameters())
            current: list[torch.Tensor] = list(model.parameters())
            torch._foreach_lerp_(averaged, current, 1 - decay)
            for mine, its in zip(self.average.buffers(), model.buffers(), strict=True):
                mine.copy_(its)  # statistics of a batch norm, averages already
        return {name: loss.item() for name, loss in losses.items()}

    def share_gradients(self) -> None:
        """Averages the gradients over the processes of the run, and advances their common clock."""
        if self.world == 1:
            self.used_s += self.unshared_s
            return
        every = (*self.recipe.model.parameters(), *self.recipe.heads.parameters())
        parameters = [p for p in every if p.requires_grad]
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

    def evaluate(self) -> dict[str, float]:
        """Dev rates of the averaged weights; keeps the best by the first of them in `best/`."""
        rates = self.recipe.dev_rates(self.average)
        if rates and (judged := next(iter(rates.values()))) <= self.best:
            self.best = judged
            self.recipe.export(self.average, self.settings.out / "best")
        return rates

    def run(self) -> None:
        """Trains until the time is used; leaves `final/`, and `best/` if there are dev sets."""
        self.resume()
        if self.progress >= 1.0:
            return  # finished before: what it left stays as it is
        last = time.monotonic()
        next_save, next_evaluation = last + SAVE_EVERY_S, last + EVALUATE_EVERY_S
        losses: list[dict[str, float]] = []
        audio_s = 0.0
        for batch in prefetched(self.batches):
            losses.append(self.update(batch))
            audio_s += batch.seconds
            now = time.monotonic()
            self.unshared_s, last = now - last, now
            if self.rank == 0:
                if len(losses) % 50 == 0:
                    print(f"{self.progress:5.0%} step {self.step} {mean_losses(losses[-50:])}", flush=True)
                if now >= next_save:
                    self.save()
                    next_save = now + SAVE_EVERY_S
                if now >= next_evaluation or self.progress >= 1.0:
                    self.report(losses, audio_s * self.world, self.evaluate())
                    losses, audio_s, next_evaluation = [], 0.0, now + EVALUATE_EVERY_S
            if self.progress >= 1.0:
                break
        if self.rank == 0:
            self.save()
            self.recipe.export(self.average, self.settings.out / "final")

    def report(self, losses: list[dict[str, float]], audio_s: float, rates: dict[str, float]) -> None:
        """Prints progress and appends it to `log.jsonl`."""
        record = {
            "minutes": round(self.used_s / 60, 1),
            "step": self.step,
            **mean_losses(losses),
            "audio_s": round(audio_s),
            **{name: round(rate, 1) for name, rate in rates.items()},
        }
        line = json.dumps(record)
        print(f"{self.progress:5.0%} {line}", flush=True)
        with (self.settings.out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def mean_losses(losses: Sequence[dict[str, float]]) -> dict[str, float]:
    """Each loss, averaged over the steps that had it."""
    names = dict.fromkeys(name for step in losses for name in step)
    return {name: round(float(np.mean([s[name] for s in losses if name in s])), 3) for name in names}


def device() -> torch.device:
    """Where models are trained."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choice(clips: Sequence[Clip]) -> Callable[[random.Random], Clip]:
    """Draws any of the clips."""
    return lambda rng: rng.choice(clips)


def argument_parser(description: str) -> argparse.ArgumentParser:
    """The options of every recipe."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True, help="run folder; an existing run is resumed")
    parser.add_argument("--hours", type=float, required=True, help="training time")
    parser.add_argument("--seed", type=int, default=1)
    return parser


def join_processes() -> None:
    """Finds the other processes of the run, if torchrun started any, and quietens transformers."""
    transformers_logging.set_verbosity_error()
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
