"""Moonshine (Jeffries et al. 2024): reads the waveform at any length and writes token after token."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import GenerationConfig, Wav2Vec2FeatureExtractor

from bitvox.compiler.frontend.byte_tokens import pack_pieces
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
from bitvox.compiler.frontend.model import Role
from bitvox.compiler.frontend.processor import AnyProcessor
from bitvox.compiler.frontend.token_processor import WaveformTokenProcessor, files_that_fit
from bitvox.compiler.frontend.waveform import load_weights, require_extractor
from bitvox.errors import InputError

# Fixed in transformers: three convolutions, the first over samples.
_KERNELS, _STRIDES = (127, 7, 3), (64, 3, 2)

_WINDOW_SECONDS = 30  # the longest clips that it was trained on

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class Moonshine(EncoderDecoder):
    """The layers of a checkpoint, under its names."""

    def __init__(self, checkpoint: Any) -> None:
        # Not from the configuration, which transformers changes while it builds the layers.
        self_attention = checkpoint.model.decoder.layers[0].self_attn
        super().__init__(checkpoint, _heads(self_attention))
        self.encoder_heads = _heads(checkpoint.model.encoder.layers[0].self_attn)
        self.longest_text = int(checkpoint.config.max_position_embeddings)
        self.hidden_width = int(checkpoint.config.hidden_size)

    def encode(self, features: Tensor) -> Tensor:
        """Hidden states [1, positions, width] of samples [1, T]."""
        encoder = self.model.encoder
        heard = encoder.groupnorm(torch.tanh(encoder.conv1(features[:, None])))
        heard = functional.gelu(encoder.conv3(functional.gelu(encoder.conv2(heard))))
        hidden = heard.transpose(1, 2)
        turns = _turns(encoder.rotary_emb, torch.arange(hidden.shape[1]))
        for layer in encoder.layers:
            attention, normal = layer.self_attn, layer.input_layernorm(hidden)
            key = _turned(by_head(attention.k_proj(normal), self.encoder_heads), turns)
            value = by_head(attention.v_proj(normal), self.encoder_heads)
            query = _turned(by_head(attention.q_proj(normal), self.encoder_heads), turns)
            found = attend(query * attention.scaling, key.transpose(2, 3), value, None)
            hidden = hidden + attention.o_proj(found)
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        return encoder.layer_norm(hidden)

    def decode(
        self, tokens: Tensor, past: Sequence[Tensor], cross: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Hidden states [B, n, width] of tokens [B, n], and the grown keys and values."""
        decoder, heads = self.model.decoder, self.heads
        position, mask = read_positions(tokens, past)
        turns = _turns(decoder.rotary_emb, position)
        hidden = self.proj_out.lookup(tokens)
        grown: list[Tensor] = []
        for index, layer in enumerate(decoder.layers):
            attention, normal = layer.self_attn, layer.input_layernorm(hidden)
            new = _turned(by_head(attention.k_proj(normal), heads), turns)
            key = torch.cat((past[2 * index], new), dim=2)
            value = torch.cat((past[2 * index + 1], by_head(attention.v_proj(normal), heads)), dim=2)
            grown += [key, value]
            query = _turned(by_head(attention.q_proj(normal), heads), turns) * attention.scaling
            hidden = hidden + attention.o_proj(attend(query, key.transpose(2, 3), value, mask))
            attention, normal = layer.encoder_attn, layer.post_attention_layernorm(hidden)
            rows = normal.reshape(1, -1, normal.shape[2])  # all rows hear one window
            query = by_head(attention.q_proj(rows), heads) * attention.scaling
            heard = attention.o_proj(attend(query, cross[2 * index], cross[2 * index + 1], None))
            hidden = hidden + heard.reshape(hidden.shape)
            hidden = hidden + layer.mlp(layer.final_layernorm(hidden))
        return decoder.norm(hidden), grown


def _heads(attention: Any) -> int:
    return int(attention.k_proj.out_features // attention.head_dim)


def _turns(rotary: Any, position: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines [n, turned / 2] of positions [n]."""
    angles = position[:, None].float() * rotary.inv_freq
    return angles.cos() * rotary.attention_scaling, angles.sin() * rotary.attention_scaling


def _turned(values: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """[B, heads, n, width], the first pairs of values turned by their positions' angles (Su et al. 2021)."""
    cos, sin = turns
    pairs = values[..., : 2 * cos.shape[1]].unflatten(3, (-1, 2))
    first, second = pairs[..., 0], pairs[..., 1]
    turned = torch.stack((first * cos - second * sin, second * cos + first * sin), dim=4).flatten(3)
    return torch.cat((turned, values[..., 2 * cos.shape[1] :]), dim=3)


def _graphs(module: torch.nn.Module, processor: AnyProcessor) -> tuple[Graph, ...]:
    assert isinstance(module, Moonshine) and isinstance(processor, WaveformTokenProcessor)
    two = processor.minimum_samples + processor.samples_per_frame
    longest, example = processor.window_samples, 2 * processor.sampling_rate
    features = Input("features", (1, Length("length", two, longest, example)))
    heard = Length("heard", 2, _positions(longest), _positions(example))
    return module.graphs(features, heard)


def _positions(samples: int) -> int:
    for kernel, stride in zip(_KERNELS, _STRIDES, strict=True):
        samples = (samples - kernel) // stride + 1
    return samples


def _load(folder: Path) -> tuple[torch.nn.Module, AnyProcessor]:
    module = load_weights("MoonshineForConditionalGeneration", folder)
    config = module.config
    for name, layer in module.named_modules():
        if name.endswith("_attn") and layer.q_proj.out_features != layer.k_proj.out_features:
            raise InputError(
                f"model '{folder}': {name} has fewer heads of keys than of queries; as many is right"
            )
    require_extractor(folder)
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(folder, local_files_only=True)
    with files_that_fit(folder):
        return module, _processor(folder, config, extractor)


def _processor(folder: Path, config: Any, extractor: Any) -> WaveformTokenProcessor:
    settings = _generation_settings(folder, config)
    end = settings.eos_token_id
    return WaveformTokenProcessor(
        sampling_rate=extractor.sampling_rate,
        normalise=extractor.do_normalize,
        minimum_samples=_KERNELS[0] + _STRIDES[0] * (_KERNELS[1] - 1 + _STRIDES[1] * (_KERNELS[2] - 1)),
        samples_per_frame=math.prod(_STRIDES),
        vocabulary=pack_pieces(_pieces(folder, config.vocab_size)),
        positions=config.max_position_embeddings,
        max_tokens=settings.max_new_tokens or (settings.max_length or config.max_position_embeddings) - 1,
        start=settings.decoder_start_token_id or config.decoder_start_token_id,
        end=end[0] if isinstance(end, Sequence) else end,
        suppressed=tuple(settings.suppress_tokens or ()),
        suppressed_first=tuple(settings.begin_suppress_tokens or ()),
        window_seconds=_WINDOW_SECONDS,
    )


def _generation_settings(folder: Path, config: Any) -> Any:
    """The settings that transformers' `generate` would take."""
    if (folder / "generation_config.json").is_file():
        return GenerationConfig.from_pretrained(folder, local_files_only=True)
    return GenerationConfig.from_model_config(config)


def _pieces(folder: Path, outputs: int) -> list[bytes]:
    """Bytes that each token adds to a text; none of a special one, or one that the tokenizer lacks."""
    if not (folder / "tokenizer.json").is_file():
        raise InputError(f"model '{folder}': no tokenizer.json; a Moonshine checkpoint needs its tokenizer")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    spelled = tokenizer.get_vocab(with_added_tokens=True)
    if max(spelled.values()) >= outputs:
        raise InputError(
            f"model '{folder}': the tokenizer has tokens up to {max(spelled.values())}, the head has "
            f"{outputs} outputs"
        )
    silent = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    pieces = [b""] * outputs
    for token, number in spelled.items():
        if number not in silent:
            byte = _BYTE.fullmatch(token)
            pieces[number] = bytes([int(byte[1], 16)]) if byte else token.replace("▁", " ").encode()
    return pieces


def _role(name: str) -> Role:
    return "input_conv" if name == "model.encoder.conv1" else role(name)


def _activation(model: torch.nn.Module, name: str) -> Literal["gelu"] | None:
    return "gelu" if name in ("model.encoder.conv2", "model.encoder.conv3") else None


FAMILIES = (
    Family(
        architecture="MoonshineForConditionalGeneration",
        kind="encoder-decoder",
        load=_load,
        wrap=Moonshine,
        role=_role,
        share_group=share_group,
        activation=_activation,
        graphs=_graphs,
    ),
)
