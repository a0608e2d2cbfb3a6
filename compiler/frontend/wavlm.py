"""WavLM (Chen et al. 2021): attention with a relative position bias that a gate opens frame by frame."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from bitvox.compiler.frontend.waveform import classifier_family, ctc_family


class _PositionBias(torch.nn.Module):
    """Bias of each head for each pair of frames, looked up by their distance.

    transformers takes a logarithm of every distance and truncates it to a bucket; another runtime's logarithm
    may fall to the other side of a whole number. Here buckets are a table, taken from transformers once.

    The embedding is a buffer and no site: a few thousand weights.
    """

    buckets: torch.Tensor
    embedding: torch.Tensor

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.reach = int(attention.max_distance)  # from here on every distance is in the last bucket
        distances = torch.arange(-self.reach, self.reach + 1)
        self.register_buffer("buckets", attention._relative_positions_bucket(distances).to(torch.int32))
        self.register_buffer("embedding", attention.rel_attn_embed.weight.detach())

    def forward(self, frames: int) -> torch.Tensor:
        """Biases [heads, frames, frames]: of a query (row) for a key (column)."""
        distances = torch.arange(1 - frames, frames).clamp(-self.reach, self.reach) + self.reach
        biases = functional.embedding(self.buckets.index_select(0, distances), self.embedding)
        position = torch.arange(frames)
        pairs = position[None, :] - position[:, None] + (frames - 1)
        return biases.T.index_select(1, pairs.flatten()).unflatten(1, (frames, frames))


class _GatedAttention(torch.nn.Module):
    """WavLM's attention with its projections run as modules, so that each is a site.

    transformers hands their weights to one fused function. Names are as in the checkpoint.
    """

    gru_rel_pos_const: torch.Tensor

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.heads: int = attention.num_heads
        self.scaling: float = attention.scaling
        self.q_proj, self.k_proj, self.v_proj = attention.q_proj, attention.k_proj, attention.v_proj
        self.out_proj = attention.out_proj
        self.gru_rel_pos_linear = attention.gru_rel_pos_linear
        self.register_buffer("gru_rel_pos_const", attention.gru_rel_pos_const.detach())
        # The first layer alone has one, and hands its bias to the others.
        self.position = _PositionBias(attention) if hasattr(attention, "rel_attn_embed") else None

    def forward(
        self, hidden_states: torch.Tensor, position_bias: torch.Tensor | None = None, **unused: object
    ) -> tuple[torch.Tensor, None, torch.Tensor]:
        """Attended [B, frames, width], no weights, and the bias [heads, frames, frames] for later layers."""
        if position_bias is None:
            assert self.position is not None
            position_bias = self.position(hidden_states.shape[1])
        query, key, value = (
            self._by_head(project(hidden_states)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        scores = torch.matmul(query * self.scaling, key.transpose(2, 3))
        weights = torch.softmax(scores + self._gate(hidden_states) * position_bias, dim=-1)
        attended = torch.matmul(weights, value).transpose(1, 2).flatten(2)
        return self.out_proj(attended), None, position_bias

    def _gate(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """How far each head opens to the bias, [B, heads, frames, 1]."""
        projected = self.gru_rel_pos_linear(self._by_head(hidden_states)).transpose(1, 2)
        update, reset = torch.sigmoid(projected.unflatten(-1, (2, 4)).sum(-1)).chunk(2, dim=-1)
        return update * (reset * self.gru_rel_pos_const - 1.0) + 2.0

    def _by_head(self, values: torch.Tensor) -> torch.Tensor:
        return values.unflatten(-1, (self.heads, -1))


def _rewrite(encoder: Any) -> None:
    for layer in encoder.encoder.layers:
        layer.attention = _GatedAttention(layer.attention)


FAMILIES = (
    ctc_family("WavLMForCTC", _rewrite),
    classifier_family("WavLMForSequenceClassification", _rewrite),
)
