"""Parakeet with a CTC head: a fast conformer (Rekesh et al. 2023) that reads log-mel features.

The strided convolutions over time and frequency are no sites: a few weights for each channel, kept in float.
What mixes their channels is most of their arithmetic, and a site.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import ParakeetFeatureExtractor, PreTrainedConfig, PreTrainedTokenizerFast

from bitvox.compiler.frontend.family import Family
from bitvox.compiler.frontend.model import Role
from bitvox.compiler.frontend.parakeet_features import CentredLogMel
from bitvox.compiler.frontend.positions import as_buffers
from bitvox.compiler.frontend.prepare import folded_batch_norm
from bitvox.compiler.frontend.processor import AnyProcessor, MelCTCProcessor
from bitvox.compiler.frontend.waveform import load_weights, require_extractor
from bitvox.errors import InputError

_SPACE = "▁"  # what sentencepiece writes for the space before a word
_ATTENTION_INPUT = re.compile(r"\.(q_proj|k_proj|v_proj)$")


class _FeaturesToLogits(torch.nn.Module):
    """Takes features alone and returns the bare logits, so that a trace has one input and one output."""

    def __init__(self, encoder: torch.nn.Module, head: torch.nn.Conv1d) -> None:
        super().__init__()
        self.encoder, self.ctc_head = encoder, _linear(head)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features [B, T, bins] -> logits [B, frames, vocabulary]."""
        return self.ctc_head(self.encoder(features).last_hidden_state)


class _FloatConv2d(torch.nn.Module):
    """A convolution over time and frequency whose weights are buffers: they stay in float, and count."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, conv: torch.nn.Conv2d) -> None:
        super().__init__()
        assert conv.bias is not None
        self.register_buffer("weight", conv.weight.detach())
        self.register_buffer("bias", conv.bias.detach())
        self.stride, self.groups = conv.stride, conv.groups
        self.padding = tuple(int(side) for side in conv.padding)

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """Planes [B, channels, time, frequency] in and out."""
        return functional.conv2d(planes, self.weight, self.bias, self.stride, self.padding, 1, self.groups)


class _PointwiseConv2d(torch.nn.Module):
    """A 1 x 1 convolution as the linear layer that it is."""

    def __init__(self, conv: torch.nn.Conv2d) -> None:
        super().__init__()
        self.channels = _linear(conv)

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """Planes [B, channels, time, frequency] in and out."""
        return self.channels(planes.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@torch.no_grad()
def _linear(conv: torch.nn.Conv1d | torch.nn.Conv2d) -> torch.nn.Linear:
    """The linear layer over channels that a convolution with a kernel of one is."""
    result = torch.nn.Linear(conv.in_channels, conv.out_channels, bias=conv.bias is not None)
    result.weight.copy_(conv.weight.flatten(1))
    if conv.bias is not None:
        result.bias.copy_(conv.bias)
    return result.requires_grad_(False).eval()


def _wrap(module: Any) -> torch.nn.Module:
    encoder = module.encoder
    steps = encoder.subsampling.layers
    for index, step in enumerate(steps):
        if isinstance(step, torch.nn.Conv2d):
            steps[index] = _PointwiseConv2d(step) if step.kernel_size == (1, 1) else _FloatConv2d(step)
    for layer in encoder.layers:
        as_buffers(layer.self_attn, "bias_u", "bias_v")
        block = layer.conv
        block.depthwise_conv = folded_batch_norm(block.depthwise_conv, block.norm)
        block.norm = torch.nn.Identity()
    return _FeaturesToLogits(encoder, module.ctc_head)


def _load(architecture: str, folder: Path) -> tuple[torch.nn.Module, AnyProcessor]:
    module = load_weights(architecture, folder)
    return module, _processor(folder, module.config)


def _processor(folder: Path, config: PreTrainedConfig) -> MelCTCProcessor:
    require_extractor(folder)
    extractor = ParakeetFeatureExtractor.from_pretrained(folder, local_files_only=True)
    encoder = config.encoder_config
    mel = CentredLogMel(
        sampling_rate=extractor.sampling_rate,
        window=extractor.win_length,
        hop=extractor.hop_length,
        points=extractor.n_fft,
        bins=extractor.feature_size,
        preemphasis=extractor.preemphasis or 0.0,
    )
    if mel.bins != encoder.num_mel_bins:
        raise InputError(
            f"model '{folder}': preprocessor_config.json makes {mel.bins} features of a frame, "
            f"config.json asks for {encoder.num_mel_bins}"
        )
    return MelCTCProcessor(
        **_tokens(folder, config),
        sampling_rate=mel.sampling_rate,
        normalise=False,
        minimum_samples=mel.minimum_samples,
        samples_per_frame=mel.hop * encoder.subsampling_factor,
        mel=mel,
    )


def _tokens(folder: Path, config: PreTrainedConfig) -> dict[str, Any]:
    """The fields that `CTCProcessor` adds; a piece of a word holds its own space."""
    if not (folder / "tokenizer.json").is_file():
        raise InputError(f"model '{folder}': no tokenizer.json; a CTC checkpoint needs its tokenizer's files")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    tokens = {index: token for token, index in tokenizer.get_vocab().items()}
    outputs = int(config.vocab_size or 0)
    if not set(range(outputs)) <= set(tokens):
        raise InputError(
            f"model '{folder}': the head has {outputs} outputs, tokenizer.json names {len(tokens)} tokens"
        )
    if config.pad_token_id is None or not 0 <= config.pad_token_id < outputs:
        raise InputError(
            f"model '{folder}': pad_token_id {config.pad_token_id} is the CTC blank and must be one of the "
            f"head's {outputs} outputs"
        )
    return {
        "vocabulary": tuple(tokens[index].replace(_SPACE, " ") for index in range(outputs)),
        "blank": config.pad_token_id,
        "word_delimiter": " ",
        "special": tuple(sorted(tokenizer.all_special_tokens)),
    }


def _role(name: str) -> Role:
    if name == "ctc_head":
        return "head"
    return "conv" if re.search(r"\.conv\.\w+_conv\d?$", name) else "linear"


FAMILIES = (
    Family(
        architecture="ParakeetForCTC",
        kind="ctc",
        load=partial(_load, "ParakeetForCTC"),
        wrap=_wrap,
        role=_role,
        share_group=lambda name: _ATTENTION_INPUT.sub(".qkv", name),
        activation=lambda model, name: None,
        reads="log-mel features",
    ),
)
