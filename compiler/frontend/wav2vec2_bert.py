"""wav2vec2-BERT (Chung et al. 2021; Seamless 2023): a causal conformer that reads log-mel features."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import PreTrainedConfig, SeamlessM4TFeatureExtractor

from bitvox.compiler.frontend.family import Family
from bitvox.compiler.frontend.features import LogMel
from bitvox.compiler.frontend.positions import rewrite_positions
from bitvox.compiler.frontend.processor import AnyProcessor, MelCTCProcessor
from bitvox.compiler.frontend.waveform import (
    adapter_stride,
    ctc_family,
    ctc_tokens,
    load_weights,
    require_extractor,
)
from bitvox.errors import InputError

# What SeamlessM4TFeatureExtractor does and no file says: Kaldi's 25 ms windows every 10 ms.
_WINDOW, _HOP, _POINTS, _LOWEST, _PREEMPHASIS = 400, 160, 512, 20.0, 0.97


class _RelativeKeyAttention(torch.nn.Module):
    """Self-attention with an embedding of every distance between two frames, clipped on both sides.

    transformers makes a vector of every pair of frames, gigabytes for a minute of audio; here a query is
    multiplied with each embedding once and the products are shifted into place. The embeddings are a buffer
    and no site: a few thousand weights. Names are as in the checkpoint.
    """

    distances: torch.Tensor

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.heads, self.scaling = int(attention.num_heads), float(attention.scaling)
        self.left = int(attention.left_max_position_embeddings)
        self.right = int(attention.right_max_position_embeddings)
        self.linear_q, self.linear_k = attention.linear_q, attention.linear_k
        self.linear_v, self.linear_out = attention.linear_v, attention.linear_out
        self.register_buffer("distances", attention.distance_embedding.weight.detach())

    def forward(self, hidden_states: torch.Tensor, **unused: object) -> tuple[torch.Tensor, None]:
        """Attended [B, frames, width] and no weights."""
        query, key, value = (
            project(hidden_states).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.linear_q, self.linear_k, self.linear_v)
        )
        query = query * self.scaling
        scores = torch.matmul(query, key.transpose(2, 3)) + self._bias(query)
        attended = torch.matmul(torch.softmax(scores, dim=-1), value)
        return self.linear_out(attended.transpose(1, 2).flatten(2)), None

    def _bias(self, query: torch.Tensor) -> torch.Tensor:
        """What the distance adds to each score, [B, heads, frames, frames]."""
        batch, heads, frames, _ = query.shape
        products = torch.matmul(query, self.distances.T)
        distance = torch.arange(1 - frames, frames).clamp(-self.left, self.right) + self.left
        # Row i holds distances from 1 - frames up; its frames begin i places further left in the next row
        # when every row is one longer.
        padded = functional.pad(products.index_select(3, distance), (1, 0))
        shifted = padded.reshape(batch, heads, 2 * frames, frames)[:, :, 1:]
        return shifted.reshape(batch, heads, frames, 2 * frames - 1)[..., :frames]


class _CausalConvolution(torch.nn.Module):
    """The conformer's convolutions, which look back and not ahead.

    transformers asks the depthwise convolution for its kernel while it runs, which a site does not tell.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.past = block.depthwise_conv.kernel_size[0] - 1
        self.layer_norm, self.depthwise_layer_norm = block.layer_norm, block.depthwise_layer_norm
        self.pointwise_conv1, self.pointwise_conv2 = block.pointwise_conv1, block.pointwise_conv2
        self.depthwise_conv, self.activation = block.depthwise_conv, block.activation

    def forward(self, hidden_states: torch.Tensor, attention_mask: None = None) -> torch.Tensor:
        """Hidden states [B, frames, width] in and out."""
        gated = functional.glu(self.pointwise_conv1(self.layer_norm(hidden_states).transpose(1, 2)), dim=1)
        mixed = self.depthwise_conv(functional.pad(gated, (self.past, 0)))
        normal = self.depthwise_layer_norm(mixed.transpose(1, 2)).transpose(1, 2)
        return self.pointwise_conv2(self.activation(normal)).transpose(1, 2)


def _rewrite(model: Any) -> None:
    rewrite_positions(model)
    for layer in model.encoder.layers:
        layer.conv_module = _CausalConvolution(layer.conv_module)
    if model.config.position_embeddings_type == "relative_key":
        for layer in model.encoder.layers:
            layer.self_attn = _RelativeKeyAttention(layer.self_attn)


def _load(architecture: str, folder: Path) -> tuple[torch.nn.Module, AnyProcessor]:
    module = load_weights(architecture, folder)
    return module, _processor(folder, module.config)


def _processor(folder: Path, config: PreTrainedConfig) -> MelCTCProcessor:
    require_extractor(folder)
    extractor = SeamlessM4TFeatureExtractor.from_pretrained(folder, local_files_only=True)
    mel = LogMel(
        sampling_rate=extractor.sampling_rate,
        window=_WINDOW,
        hop=_HOP,
        points=_POINTS,
        bins=extractor.num_mel_bins,
        lowest=_LOWEST,
        preemphasis=_PREEMPHASIS,
        stacked=extractor.stride,
    )
    _, width = mel.shape(mel.minimum_samples)
    if width != config.feature_projection_input_dim:
        raise InputError(
            f"model '{folder}': preprocessor_config.json makes {width} features of a frame, "
            f"config.json asks for {config.feature_projection_input_dim}"
        )
    return MelCTCProcessor(
        **ctc_tokens(folder, config),
        sampling_rate=mel.sampling_rate,
        normalise=False,
        minimum_samples=mel.minimum_samples,
        samples_per_frame=mel.hop * mel.stacked * adapter_stride(config),
        mel=mel,
    )


def _family(architecture: str) -> Family:
    return dataclasses.replace(
        ctc_family(architecture, _rewrite), load=partial(_load, architecture), reads="log-mel features"
    )


FAMILIES = (_family("Wav2Vec2BertForCTC"),)
