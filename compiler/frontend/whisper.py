"""Whisper (Radford et al. 2022): a transformer that reads log-mel features and writes token after token."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from bitvox.compiler.frontend.family import Family
from bitvox.compiler.frontend.graph_decoder import CROSS, ENCODER, MAX_ROWS, STEP
from bitvox.compiler.frontend.graphs import Graph, Input, Length, Output
from bitvox.compiler.frontend.model import Role
from bitvox.compiler.frontend.processor import AnyProcessor
from bitvox.compiler.frontend.tied import TiedLinear
from bitvox.compiler.frontend.waveform import load_weights
from bitvox.compiler.frontend.whisper_files import read_whisper_processor

_SHARING = re.compile(r"\.self_attn\.(q_proj|k_proj|v_proj)$|\.encoder_attn\.(k_proj|v_proj)$")


class Whisper(torch.nn.Module):
    """The layers of a checkpoint, under its names, run as graphs with explicit caches.

    Attention is written out, without a framework's cache and without a mask where there is nothing to mask.
    Keys of cross-attention are kept transposed: a step multiplies with them as they lie in memory.
    """

    def __init__(self, checkpoint: Any) -> None:
        super().__init__()
        self.model = checkpoint.model
        self.heads = int(checkpoint.config.decoder_attention_heads)
        self.encoder_heads = int(checkpoint.config.encoder_attention_heads)
        encoder, decoder = self.model.encoder, self.model.decoder
        if checkpoint.proj_out.weight is decoder.embed_tokens.weight:
            self.proj_out = TiedLinear(checkpoint.proj_out.weight)
            del decoder.embed_tokens
        else:  # a table of its own is named as what cannot be handled
            self.proj_out = checkpoint.proj_out
        for stack in (encoder, decoder):
            positions = stack.embed_positions.weight.detach()
            del stack.embed_positions
            stack.register_buffer("positions", positions)

    def forward(self, features: Tensor, prompt: Tensor, tokens: Tensor) -> Tensor:
        """Logits [1, n, vocabulary] from which tokens [1, n] were chosen after a prompt [1, p].

        The steps of a decoding at once: each row of a decoder's layer is what a step of one token gives it.
        """
        cross = self.cross(self.encode(features))
        nothing = cross[1][:, :, :0]
        read = torch.cat((prompt, tokens[:, :-1]), dim=1)
        hidden, _ = self._decode(read, [nothing] * len(cross), cross)
        return self.proj_out(hidden[:, prompt.shape[1] - 1 :])

    def encode(self, features: Tensor) -> Tensor:
        """Hidden states [1, positions, width] of a window of features [1, mels, frames]."""
        encoder = self.model.encoder
        hidden = functional.gelu(encoder.conv2(functional.gelu(encoder.conv1(features)))).transpose(1, 2)
        hidden = hidden + encoder.positions[: hidden.shape[1]]
        for layer in encoder.layers:
            attention, normal = layer.self_attn, layer.self_attn_layer_norm(hidden)
            key = _by_head(attention.k_proj(normal), self.encoder_heads).transpose(2, 3)
            value = _by_head(attention.v_proj(normal), self.encoder_heads)
            hidden = hidden + _attend(attention, normal, key, value, None, self.encoder_heads)
            hidden = hidden + _feed_forward(layer, hidden)
        return encoder.layer_norm(hidden)

    def cross(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """Keys [1, heads, width, positions] and values [1, heads, positions, width], layer by layer."""
        found: list[Tensor] = []
        for layer in self.model.decoder.layers:
            key = _by_head(layer.encoder_attn.k_proj(hidden), self.heads)
            found += [key.transpose(2, 3), _by_head(layer.encoder_attn.v_proj(hidden), self.heads)]
        return tuple(found)

    def step(self, tokens: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """Logits [B, vocabulary] after tokens [B, n], then the keys and values of all tokens so far.

        `caches` are keys and values [B, heads, t, width] of what was read before, layer by layer, and then
        what `cross` gave.
        """
        half = len(caches) // 2
        hidden, grown = self._decode(tokens, list(caches[:half]), caches[half:])
        return (self.proj_out(hidden[:, -1:])[:, 0], *grown)

    def _decode(
        self, tokens: Tensor, past: list[Tensor], cross: tuple[Tensor, ...]
    ) -> tuple[Tensor, list[Tensor]]:
        """Hidden states [B, n, width] of tokens [B, n], and the grown keys and values."""
        decoder = self.model.decoder
        before, count = past[0].shape[2], tokens.shape[1]
        position = torch.arange(count) + before
        hidden = self.proj_out.lookup(tokens) + decoder.positions.index_select(0, position)
        later = torch.arange(before + count)[None, :] > position[:, None]
        mask = torch.zeros(count, before + count).masked_fill(later, -torch.inf)
        grown: list[Tensor] = []
        for index, layer in enumerate(decoder.layers):
            attention, normal = layer.self_attn, layer.self_attn_layer_norm(hidden)
            key = torch.cat((past[2 * index], _by_head(attention.k_proj(normal), self.heads)), dim=2)
            value = torch.cat((past[2 * index + 1], _by_head(attention.v_proj(normal), self.heads)), dim=2)
            grown += [key, value]
            hidden = hidden + _attend(attention, normal, key.transpose(2, 3), value, mask, self.heads)
            normal = layer.encoder_attn_layer_norm(hidden)
            # All rows hear one window: they are rows of one product, which reads its keys once.
            rows = normal.reshape(1, -1, normal.shape[2])
            key, value = cross[2 * index], cross[2 * index + 1]
            heard = _attend(layer.encoder_attn, rows, key, value, None, self.heads)
            hidden = hidden + heard.reshape(hidden.shape)
            hidden = hidden + _feed_forward(layer, hidden)
        return decoder.layer_norm(hidden), grown


def _by_head(values: Tensor, heads: int) -> Tensor:
    """[B, n, heads * width] as [B, heads, n, width]."""
    return values.unflatten(2, (heads, -1)).transpose(1, 2)


def _attend(
    attention: Any, hidden: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, heads: int
) -> Tensor:
    """Output [B, n, width] of attention from hidden states to keys [B, heads, width, t] and their values."""
    query = _by_head(attention.q_proj(hidden) * attention.scaling, heads)
    scores = torch.matmul(query, key)
    if mask is not None:
        scores = scores + mask
    attended = torch.matmul(torch.softmax(scores, dim=-1), value)
    return attention.out_proj(attended.transpose(1, 2).flatten(2))


def _feed_forward(layer: Any, hidden: Tensor) -> Tensor:
    return layer.fc2(layer.activation_fn(layer.fc1(layer.final_layer_norm(hidden))))


def _graphs(module: torch.nn.Module, processor: AnyProcessor) -> tuple[Graph, ...]:
    assert isinstance(module, Whisper)
    encoder, decoder = module.model.encoder, module.model.decoder
    positions, width = encoder.positions.shape
    longest, depth = decoder.positions.shape
    heads, layers = module.heads, range(len(decoder.layers))
    rows, new = Length("rows", 1, MAX_ROWS, 3), Length("tokens", 1, longest, 4)
    old, head = Length("past", 0, longest, 5), depth // heads
    # A window has one length; but were it fixed, ONNX Runtime would make a Gemm of a product and its bias,
    # which it computes in float.
    bins, window = processor.input_shape(processor.minimum_samples)
    features = Input("features", (1, bins, Length("frames", 4, window, window)))
    heard = Length("heard", 2, positions, positions)
    cross = tuple(
        port
        for layer in layers
        for port in (
            Input(f"cross.key.{layer}", (1, heads, head, heard)),
            Input(f"cross.value.{layer}", (1, heads, heard, head)),
        )
    )
    names = [f"{kind}.{layer}" for layer in layers for kind in ("key", "value")]
    past = tuple(Input(f"past.{name}", (rows, heads, old, head)) for name in names)
    grown = tuple(Output(name, ("rows", heads, "read", head)) for name in names)
    hidden = Input("hidden", (1, heard, width))
    kept = tuple(Output(port.name, tuple(map(_size, port.shape))) for port in cross)
    tokens = Input("tokens", (rows, new), torch.int64)
    return (
        Graph(ENCODER, (features,), (Output("hidden", (1, "heard", width)),), "encode"),
        Graph(CROSS, (hidden,), kept, "cross"),
        Graph(STEP, (tokens, *past, *cross), (Output("logits", ("rows", None)), *grown), "step"),
    )


def _size(size: int | Length) -> int | str:
    return size.name if isinstance(size, Length) else size


def _load(folder: Path) -> tuple[torch.nn.Module, AnyProcessor]:
    module = load_weights("WhisperForConditionalGeneration", folder)
    return module, read_whisper_processor(folder, module.config)


def _role(name: str) -> Role:
    if name == "proj_out":
        return "embedding"
    if ".conv" in name:
        return "conv"
    return "decoder" if ".decoder." in name else "linear"


def _share_group(name: str) -> str:
    return _SHARING.sub(lambda found: ".self_attn.qkv" if found[1] else ".encoder_attn.kv", name)


def _activation(model: torch.nn.Module, name: str) -> Literal["gelu"] | None:
    return "gelu" if ".conv" in name else None


FAMILIES = (
    Family(
        architecture="WhisperForConditionalGeneration",
        kind="encoder-decoder",
        load=_load,
        wrap=Whisper,
        role=_role,
        share_group=_share_group,
        activation=_activation,
        reads="log-mel features",
        graphs=_graphs,
    ),
)
