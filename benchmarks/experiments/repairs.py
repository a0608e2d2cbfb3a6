"""Repairs in closed form of a model whose weights were rounded: what they moved on average is moved back.

Nothing is stored for it beyond what a model has anyway, in float32: biases, and the scales of norms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from bitvox.compiler.frontend.model import SpeechModel

Inputs = tuple[Tensor, ...]


class _Reached(Exception):
    """The module that was wanted has run."""


@torch.inference_mode()
def corrected_biases(model: SpeechModel, changed: nn.Module, inputs: Sequence[Inputs]) -> list[str]:
    """Each site's bias takes back what its output moved by in the mean (arXiv 1906.04721, section 4.2).

    Site after site, in execution order. Gives the names of the biases of `changed` that are others now.
    """
    found = []
    for site in model.sites:
        bias = changed.get_submodule(site.name).bias
        if not isinstance(bias, Tensor):
            continue
        wanted, seen = (_moments(one, site.name, inputs)[0] for one in (model.module, changed))
        bias.add_(wanted - seen)
        found.append(f"{site.name}.bias")
    return found


@torch.inference_mode()
def refitted_norms(model: SpeechModel, changed: nn.Module, inputs: Sequence[Inputs]) -> list[str]:
    """Each norm's scale and shift bring its output back to the mean and spread that it had.

    Norm after norm. Gives the names of the parameters of `changed` that are others now.
    """
    found = []
    for name, norm in changed.named_modules():
        if not isinstance(norm, nn.LayerNorm | nn.GroupNorm) or norm.weight is None:
            continue
        (wanted, spread), (seen, now) = (_moments(one, name, inputs) for one in (model.module, changed))
        scale = torch.where(now > 0, spread / now.clamp(min=1e-12), 1.0)
        norm.weight.mul_(scale)
        norm.bias.copy_(scale * (norm.bias - seen) + wanted)
        found += [f"{name}.weight", f"{name}.bias"]
    return found


def _moments(module: nn.Module, name: str, inputs: Sequence[Inputs]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of a part's output, [channels] each."""
    total, squares, frames = torch.zeros(()), torch.zeros(()), 0
    for values in _outputs(module, name, inputs):
        total, squares = total + values.sum(dim=0), squares + values.square().sum(dim=0)
        frames += len(values)
    mean = total / frames
    return mean.float(), (squares / frames - mean.square()).clamp(min=0).sqrt().float()


def _outputs(module: nn.Module, name: str, inputs: Sequence[Inputs]) -> Iterator[Tensor]:
    """What a part writes for each input, [frames, channels]."""
    written: list[Tensor] = []

    def write(part: nn.Module, _values: Inputs, output: Tensor) -> None:
        # Convolutions, and norms of groups of channels, have channels before frames.
        flat = output.mT if isinstance(part, nn.Conv1d | nn.GroupNorm) else output
        written.append(flat.reshape(-1, flat.shape[-1]).double())
        raise _Reached

    handle = module.get_submodule(name).register_forward_hook(write)
    try:
        for one in inputs:
            try:
                module(*one)
            except _Reached:
                yield written.pop()
    finally:
        handle.remove()
