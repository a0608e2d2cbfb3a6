"""Whisper (Radford et al. 2022): a transformer that reads log-mel features and writes token after token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from bitvox.compiler.frontend.encoder_decoder import (
    EncoderDecoder,
    attend,
    by_head,
    read_positions,
    role,
    share_group,
)
from bitvox.compiler.frontend.family import Family
from bitvox.compiler.frontend.graphs import Graph, Input, Length
from bitvox.compiler.frontend.processor import AnyProcessor
from bitvox.compiler.frontend.waveform import load_weights
from bitvox.compiler.frontend.whisper_files import read_whisper_processor

# Of the sines of angles up to 1500 in float32, which every library rounds its own way.
_ROUNDING = 1e-6


class _Table(torch.nn.Module):
    """Positions as they are stored."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table)

    def forward(self, count: int) -> Tensor:
        """The first of them [count, width]."""
        return self.get_buffer("table")[:count]


class _Sinusoids(torch.nn.Module):
    """Positions that are computed where they are needed: sines, then cosines (Vaswani et al. 2017).

    A checkpoint that was stored in half precision has them rounded to it, and so have these.
    """

    def __init__(self, width: int, half: bool) -> None:
        super().__init__()
        step = math.log(10_000) / (width // 2 - 1)
        self.register_buffer("rates", torch.exp(-step * torch.arange(width // 2)))
        self.half_precision = half

    def forward(self, count: int) -> Tensor:
        """The first of them [count, width]."""
        angles = torch.arange(count)[:, None] * self.get_buffer("rates")
        table = torch.cat((angles.sin(), angles.cos()), dim=1)
        return table.half().float() if self.half_precision else table


def _positions(table: Tensor) -> torch.nn.Module:
    """What gives the rows of an encoder's table: a megabyte of sinusoids need not be stored."""
    for half in (False, True):
        computed = _Sinusoids(table.shape[1], half)
        if torch.allclose(computed(len(table)), table, rtol=0, atol=_ROUNDING):
            return computed
    return _Table(table)


class Whisper(EncoderDecoder):
    """The layers of a checkpoint, under its names."""

    def __init__(self, checkpoint: Any) -> None:
        super().__init__(checkpoint, int(checkpoint.config.decoder_attention_heads))
        self.encoder_heads = int(checkpoint.config.encoder_attention_heads)
        encoder, decoder = self.model.encoder, self.model.decoder
        self.longest_window, self.hidden_width = encoder.embed_positions.weight.shape
        self.longest_text = len(decoder.embed_positions.weight)
        encoder.positions = _positions(encoder.embed_positions.weight.detach())
        decoder.register_buffer("positions", decoder.embed_positions.weight.detach())
        del encoder.embed_positions, decoder.embed_positions

    def encode(self, features: Tensor) -> Tensor:
        """Hidden states [1, positions, width] of a window of features [1, mels, frames]."""
        encoder = self.model.encoder
        hidden = functional.gelu(encoder.conv2(functional.gelu(encoder.conv1(features)))).transpose(1, 2)
        hidden = hidden + encoder.positions(hidden.shape[1])
        for layer in encoder.layers:
            attention, normal = layer.self_attn, layer.self_attn_layer_norm(hidden)
            key = by_head(attention.k_proj(normal), self.encoder_heads).transpose(2, 3)
            value = by_head(attention.v_proj(normal), self.encoder_heads)
            hidden = hidden + _attend(attention, normal, key, value, None, self.encoder_heads)
            hidden = hidden + _feed_forward(layer, hidden)
        return encoder.layer_norm(hidden)

    def decode(
        self, tokens: Tensor, past: Sequence[Tensor], cross: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Hidden states [B, n, width] of tokens [B, n], and the grown keys and values."""
        decoder = self.model.decoder
        position, mask = read_positions(tokens, past)
        hidden = self.proj_out.lookup(tokens) + decoder.positions.index_select(0, position)
        grown: list[Tensor] = []
        for index, layer in enumerate(decoder.layers):
            attention, normal = layer.self_attn, layer.self_attn_layer_norm(hidden)
            key = torch.cat((past[2 * index], by_head(attention.k_proj(normal), self.heads)), dim=2)
            value = torch.cat((past[2 * index + 1], by_head(attention.v_proj(normal), self.heads)), dim=2)
            grown += [key, value]
            hidden = hidden + _attend(attention, normal, key.transpose(2, 3), value, mask, self.heads)
            normal = layer.encoder_attn_layer_norm(hidden)
            rows = normal.reshape(1, -1, normal.shape[2])  # all rows hear one window
            key, value = cross[2 * index], cross[2 * index + 1]
            heard = _attend(layer.encoder_attn, rows, key, value, None, self.heads)
            hidden = hidden + heard.reshape(hidden.shape)
            hidden = hidden + _feed_forward(layer, hidden)
        return decoder.layer_norm(hidden), grown


def _attend(
    attention: Any, hidden: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, heads: int
) -> Tensor:
    """Output [B, n, width] of attention from hidden states to keys [B, heads, width, t] and their values."""
    query = by_head(attention.q_proj(hidden) * attention.scaling, heads)
    return attention.out_proj(attend(query, key, value, mask))


def _feed_forward(layer: Any, hidden: Tensor) -> Tensor:
    return layer.fc2(layer.activation_fn(layer.fc1(layer.final_layer_norm(hidden))))


def _graphs(module: torch.nn.Module, processor: AnyProcessor) -> tuple[Graph, ...]:
    assert isinstance(module, Whisper)
    # A window has one length; but were it fixed, ONNX Runtime would make a Gemm of a product and its bias,
    # which it computes in float.
    bins, window = processor.input_shape(processor.minimum_samples)
    features = Input("features", (1, bins, Length("frames", 4, window, window)))
    heard = Length("heard", 2, module.longest_window, module.longest_window)
    return module.graphs(features, heard)


def _load(folder: Path) -> tuple[torch.nn.Module, AnyProcessor]:
    module = load_weights("WhisperForConditionalGeneration", folder)
    return module, read_whisper_processor(folder, module.config)


def _activation(model: torch.nn.Module, name: str) -> Literal["gelu"] | None:
    return "gelu" if ".conv" in name else None


FAMILIES = (
    Family(
        architecture="WhisperForConditionalGeneration",
        kind="encoder-decoder",
        load=_load,
        wrap=Whisper,
        role=role,
        share_group=share_group,
        activation=_activation,
        reads="log-mel features",
        graphs=_graphs,
    ),
)
