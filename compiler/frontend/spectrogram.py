"""Audio spectrogram transformer (Gong et al. 2021): patches of a log-mel window, and one label for it.

The embedding of the patches, a convolution over time and frequency, is the linear layer over unfolded
patches that it is, and a site.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from transformers import ASTFeatureExtractor, PreTrainedConfig

from bitvox.compiler.frontend.family import Family
from bitvox.compiler.frontend.graphs import Graph, Input, Length, Output
from bitvox.compiler.frontend.model import Role
from bitvox.compiler.frontend.processor import AnyProcessor, MelClassifierProcessor
from bitvox.compiler.frontend.session import LOGITS, MODEL, SAMPLES
from bitvox.compiler.frontend.spectrogram_features import PaddedLogMel
from bitvox.compiler.frontend.waveform import class_labels, load_weights, require_extractor
from bitvox.errors import InputError

_ATTENTION_INPUT = re.compile(r"\.(q_proj|k_proj|v_proj)$")


class _Patches(torch.nn.Module):
    """The embeddings of overlapping square patches, and where each lies."""

    first: torch.Tensor
    positions: torch.Tensor

    def __init__(self, embeddings: Any) -> None:
        super().__init__()
        conv, config = embeddings.patch_embeddings.projection, embeddings.config
        self.size = int(config.patch_size)
        self.rows = (int(config.num_mel_bins) - self.size) // int(config.frequency_stride) + 1
        self.strides = int(config.frequency_stride), int(config.time_stride)
        self.projection = torch.nn.Linear(self.size**2, conv.out_channels)
        with torch.no_grad():
            self.projection.weight.copy_(conv.weight.flatten(1))
            self.projection.bias.copy_(conv.bias)
        self.projection.requires_grad_(False)
        places = embeddings.position_embeddings.detach()[:, 2:]
        self.register_buffer("positions", places.unflatten(1, (self.rows, -1)))
        first = torch.cat((embeddings.cls_token, embeddings.distillation_token), dim=1).detach()
        self.register_buffer("first", first + embeddings.position_embeddings.detach()[:, :2])

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features [B, T, bins] -> two tokens of the clip and its patches, [B, 2 + rows * columns, width]."""
        columns = (features.shape[1] - self.size) // self.strides[1] + 1
        inside = torch.arange(self.size)
        column = torch.arange(columns)
        times = (column[:, None] * self.strides[1] + inside).flatten()
        bins = (torch.arange(self.rows)[:, None] * self.strides[0] + inside).flatten()
        cut = features.index_select(1, times).index_select(2, bins)
        squares = cut.reshape(-1, columns, self.size, self.rows, self.size).permute(0, 3, 1, 4, 2)
        embedded = self.projection(squares.flatten(3)) + self.positions.index_select(2, column)
        return torch.cat((self.first.expand(features.shape[0], -1, -1), embedded.flatten(1, 2)), dim=1)


class _FeaturesToLabels(torch.nn.Module):
    """Takes features alone and returns the logits of the labels, as those of one frame."""

    def __init__(self, checkpoint: Any) -> None:
        super().__init__()
        encoder = checkpoint.audio_spectrogram_transformer
        self.embeddings = _Patches(encoder.embeddings)
        self.layers, self.layernorm = encoder.layers, encoder.layernorm
        self.classifier = checkpoint.classifier

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features [B, T, bins] -> logits [B, 1, labels]."""
        hidden = self.embeddings(features)
        for layer in self.layers:
            hidden = layer(hidden)
        pooled = self.layernorm(hidden[:, :2]).mean(dim=1, keepdim=True)
        # One row for each patch, all the same: of a single row ONNX Runtime makes a Gemm, which it computes
        # in float.
        return self.classifier(pooled.expand(-1, hidden.shape[1], -1)).mean(dim=1, keepdim=True)


def _load(folder: Path) -> tuple[torch.nn.Module, AnyProcessor]:
    module = load_weights("ASTForAudioClassification", folder)
    return module, _processor(folder, module.config)


def _processor(folder: Path, config: PreTrainedConfig) -> MelClassifierProcessor:
    require_extractor(folder)
    extractor = ASTFeatureExtractor.from_pretrained(folder, local_files_only=True)
    mel = PaddedLogMel(
        sampling_rate=extractor.sampling_rate,
        bins=extractor.num_mel_bins,
        frames=extractor.max_length,
        mean=extractor.mean if extractor.do_normalize else 0.0,
        deviation=extractor.std if extractor.do_normalize else 0.5,
    )
    if (mel.bins, mel.frames) != (config.num_mel_bins, config.max_length):
        raise InputError(
            f"model '{folder}': preprocessor_config.json makes {mel.frames} frames of {mel.bins} features, "
            f"config.json asks for {config.max_length} of {config.num_mel_bins}"
        )
    return MelClassifierProcessor(
        labels=class_labels(folder, config),
        sampling_rate=mel.sampling_rate,
        normalise=False,
        minimum_samples=mel.minimum_samples,
        samples_per_frame=mel.frames * mel.hop,
        mel=mel,
    )


def _graphs(module: torch.nn.Module, processor: AnyProcessor) -> tuple[Graph, ...]:
    """One, its length free: were it fixed, ONNX Runtime would make a Gemm of each product and its bias."""
    frames, bins = processor.input_shape(processor.minimum_samples)
    assert isinstance(module, _FeaturesToLabels)
    two_columns = module.embeddings.size + module.embeddings.strides[1]
    length = Length("length", two_columns, frames, frames)
    return (Graph(MODEL, (Input(SAMPLES, (1, length, bins)),), (Output(LOGITS, (1, 1, None)),)),)


def _role(name: str) -> Role:
    return "head" if name == "classifier.dense" else "linear"


FAMILIES = (
    Family(
        architecture="ASTForAudioClassification",
        kind="classifier",
        load=_load,
        wrap=_FeaturesToLabels,
        role=_role,
        share_group=lambda name: _ATTENTION_INPUT.sub(".qkv", name),
        activation=lambda model, name: None,
        reads="log-mel features",
        graphs=_graphs,
    ),
)
