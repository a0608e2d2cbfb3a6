"""How far a changed model's output distribution moves from full precision's own, without labels."""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn import functional

from bitvox.compiler.frontend.model import Site, SpeechModel
from bitvox.compiler.frontend.threads import side_by_side
from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.recall import Recall, running
from bitvox.errors import InputError


class Divergence:
    """KL(full precision || another model), a mean over the output frames of some seconds of the clips.

    A frame counts by `1 - (1 - blank_weight) P(blank)`: where CTC says nothing, as in most frames, a model
    may change much before a word does. Only one that `recalls` saves time where little changes, by memory.
    """

    def __init__(
        self, context: PassContext, seconds: float, blank_weight: float = 1.0, recalls: bool = False
    ) -> None:
        self._inputs = excerpts(context, seconds)
        self._threads = context.threads
        self._recall = Recall(context.model.sites, len(self._inputs))
        with self._recall.recording(context.model.module) if recalls else nullcontext():
            self._expected = self._log_probabilities(context.model.module)
        self._weights = [_frame_weights(context.model, one, blank_weight) for one in self._expected]

    def of_change(self, module: torch.nn.Module, first: Site) -> float:
        """The divergence of a module that is the model's but for this site and others that run after it."""
        with self._recall.before(module, first):
            return self.of(module)

    def of(self, module: torch.nn.Module) -> float:
        """The divergence of a module that takes what the model's takes; infinite where it is not finite."""
        total, count = 0.0, 0.0
        found = self._log_probabilities(module)
        for ours, theirs, weights in zip(found, self._expected, self._weights, strict=True):
            frames = functional.kl_div(ours, theirs, reduction="none", log_target=True).sum(dim=-1)
            total += float((frames * weights).sum())
            count += float(weights.sum())
        return max(0.0, total / count) if math.isfinite(total) else math.inf

    def _log_probabilities(self, module: torch.nn.Module) -> list[Tensor]:
        """Logarithm of the distribution over the outputs, [1, frames, outputs] of each excerpt."""

        @torch.inference_mode()
        def run(number: int) -> Tensor:
            with running(number):
                logits = module(*self._inputs[number])
            # Of nearly equal distributions float32 leaves noise, and divergences below zero.
            return functional.log_softmax(logits.double(), dim=-1)

        return side_by_side(run, range(len(self._inputs)), self._threads)


def _frame_weights(model: SpeechModel, expected: Tensor, blank_weight: float) -> Tensor:
    """Weight of each frame, [1, frames]; of a model without a blank they are alike."""
    blank = getattr(model.processor, "blank", None)
    if blank is None:
        return torch.ones(expected.shape[:2])
    return 1 - (1 - blank_weight) * expected[:, :, blank].exp()


def excerpts(context: PassContext, seconds: float) -> list[tuple[Tensor, ...]]:
    """The beginnings of some clips, as inputs of the module: equally long, as far as clips are.

    As many of the first as it takes, and an even number where there are so many: two that are computed side
    by side then take one another's time.
    """
    if not context.clips:
        raise InputError("audio: no clip to calibrate with; give at least one")
    processor = context.model.processor
    wanted = round(seconds * processor.sampling_rate)
    sizes = [samples.size for samples in context.clips]
    most = max(1, min(len(sizes), wanted // processor.minimum_samples))
    count = next((n for n in range(2, most, 2) if sum(sizes[:n]) >= wanted), most)
    cut = max(_level(sizes[:count], wanted), processor.minimum_samples)
    return [context.model.inputs(samples[:cut]) for samples in context.clips[:count]]


def _level(sizes: list[int], wanted: int) -> int:
    """What sizes are cut to so that they add up to no more than is wanted."""
    for number, size in enumerate(sorted(sizes)):
        level = wanted // (len(sizes) - number)
        if size > level:
            return level
        wanted -= size
    return max(sizes)
