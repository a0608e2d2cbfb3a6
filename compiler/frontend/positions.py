"""Positions of a conformer, computed from the length of the clip in place of tables that grow with it."""

from __future__ import annotations

import math
from typing import Any

import torch


def rewrite_positions(model: Any) -> None:
    """Make an encoder of transformers compute its relative or rotary positions; works in place."""
    encoder, config = model.encoder, model.config
    if config.position_embeddings_type == "relative":
        encoder.embed_positions = _RelativePositions(config.hidden_size)
        for layer in encoder.layers:
            as_buffers(layer.self_attn, "pos_bias_u", "pos_bias_v")
    elif config.position_embeddings_type == "rotary":
        encoder.embed_positions = _RotaryPositions(encoder.embed_positions.inv_freq)


def as_buffers(attention: torch.nn.Module, *names: str) -> None:
    """Make constants of parameters: biases [heads, head width], which no site multiplies with."""
    for name in names:
        value = attention.get_parameter(name).detach()
        delattr(attention, name)
        attention.register_buffer(name, value)


class _RelativePositions(torch.nn.Module):
    """Sinusoids of every distance between two frames, from the largest down (Dai et al. 2019).

    transformers keeps a table for the longest clip that it has met: tens of megabytes as a constant of a
    graph, and no two clips could run at once.
    """

    frequencies: torch.Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        even = torch.arange(0, width, 2).float()
        self.register_buffer("frequencies", torch.exp(even * -(math.log(10000.0) / width)))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Embeddings [1, 2 * frames - 1, width] for hidden states [B, frames, width]."""
        frames = hidden_states.shape[1]
        distances = (frames - 1 - torch.arange(2 * frames - 1)).float()
        angles = distances[:, None] * self.frequencies
        return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)[None]


class _RotaryPositions(torch.nn.Module):
    """Cosines and sines that turn each pair of channels (Su et al. 2021), computed anew for every clip."""

    frequencies: torch.Tensor

    def __init__(self, frequencies: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("frequencies", frequencies)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Factors [2, frames, 1, 1, head width] for hidden states [B, frames, width]."""
        angles = torch.arange(hidden_states.shape[1]).float()[:, None] * self.frequencies
        angles = torch.cat((angles, angles), dim=-1)
        return torch.stack((angles.cos(), angles.sin()))[:, :, None, None, :]
