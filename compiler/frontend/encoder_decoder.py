"""An encoder-decoder as graphs with explicit caches: what Whisper and its relatives share.

A family's own file extends `EncoderDecoder` by how its encoder hears and how a layer of its decoder reads.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bitvox.compiler.frontend.graph_decoder import CROSS, ENCODER, MAX_ROWS, STEP
from bitvox.compiler.frontend.graphs import Graph, Input, Length, Output
from bitvox.compiler.frontend.model import Role
from bitvox.compiler.frontend.tied import TiedLinear

_SHARING = re.compile(r"\.self_attn\.(q_proj|k_proj|v_proj)$|\.encoder_attn\.(k_proj|v_proj)$")


class EncoderDecoder(torch.nn.Module, ABC):
    """The layers of a checkpoint, under its names, run as graphs with explicit caches.

    Attention is written out, without a framework's cache and without a mask where there is nothing to mask.
    Keys of cross-attention are kept transposed: a step multiplies with them as they lie in memory.

    Attributes:
        heads: Of the decoder's attention.
        longest_text: Tokens that the decoder can read.
        hidden_width: Of the encoder's hidden states.
    """

    longest_text: int
    hidden_width: int

    def __init__(self, checkpoint: Any, heads: int) -> None:
        super().__init__()
        self.model, self.heads = checkpoint.model, heads
        decoder = self.model.decoder
        if checkpoint.proj_out.weight is decoder.embed_tokens.weight:
            self.proj_out = TiedLinear(checkpoint.proj_out.weight)
            del decoder.embed_tokens
        else:  # a table of its own is named as what cannot be handled
            self.proj_out = checkpoint.proj_out

    @abstractmethod
    def encode(self, features: Tensor) -> Tensor:
        """Hidden states [1, positions, width] of one window of model input [1, ...]."""

    @abstractmethod
    def decode(
        self, tokens: Tensor, past: Sequence[Tensor], cross: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Hidden states [B, n, width] of tokens [B, n], and the grown keys and values.

        Args:
            tokens: [B, n].
            past: Keys and values [B, heads, t, width] of what was read before, layer by layer.
            cross: What `cross` gave.
        """

    def forward(self, features: Tensor, prompt: Tensor, tokens: Tensor) -> Tensor:
        """Logits [1, n, vocabulary] from which tokens [1, n] were chosen after a prompt [1, p].

        The steps of a decoding at once: each row of a decoder's layer is what a step of one token gives it.
        """
        cross = self.cross(self.encode(features))
        nothing = cross[1][:, :, :0]
        read = torch.cat((prompt, tokens[:, :-1]), dim=1)
        hidden, _ = self.decode(read, [nothing] * len(cross), cross)
        return self.proj_out(hidden[:, prompt.shape[1] - 1 :])

    def cross(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """Keys [1, heads, width, positions] and values [1, heads, positions, width], layer by layer."""
        found: list[Tensor] = []
        for layer in self.model.decoder.layers:
            key = by_head(layer.encoder_attn.k_proj(hidden), self.heads)
            found += [key.transpose(2, 3), by_head(layer.encoder_attn.v_proj(hidden), self.heads)]
        return tuple(found)

    def step(self, tokens: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """Logits [B, vocabulary] after tokens [B, n], then the keys and values of all tokens so far.

        `caches` are keys and values [B, heads, t, width] of what was read before, layer by layer, and then
        what `cross` gave.
        """
        half = len(caches) // 2
        hidden, grown = self.decode(tokens, caches[:half], caches[half:])
        return (self.proj_out(hidden[:, -1:])[:, 0], *grown)

    def graphs(self, features: Input, heard: Length) -> tuple[Graph, ...]:
        """The graphs that runtimes run: `encoder` reads `features` and hears `heard` positions."""
        attention = self.model.decoder.layers[0].self_attn
        heads, head = self.heads, attention.k_proj.out_features // self.heads
        layers = range(len(self.model.decoder.layers))
        rows, new = Length("rows", 1, MAX_ROWS, 3), Length("tokens", 1, self.longest_text, 4)
        old = Length("past", 0, self.longest_text, 5)
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
        hidden = Input("hidden", (1, heard, self.hidden_width))
        kept = tuple(Output(port.name, tuple(map(_size, port.shape))) for port in cross)
        tokens = Input("tokens", (rows, new), torch.int64)
        encoded = Output("hidden", (1, heard.name, self.hidden_width))
        return (
            Graph(ENCODER, (features,), (encoded,), "encode"),
            Graph(CROSS, (hidden,), kept, "cross"),
            Graph(STEP, (tokens, *past, *cross), (Output("logits", ("rows", None)), *grown), "step"),
        )


def by_head(values: Tensor, heads: int) -> Tensor:
    """[B, n, heads * width] as [B, heads, n, width]."""
    return values.unflatten(2, (heads, -1)).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """[B, n, heads * width] that queries [B, heads, n, width], scaled, find at keys [B, heads, width, t]."""
    scores = torch.matmul(query, key)
    if mask is not None:
        scores = scores + mask
    return torch.matmul(torch.softmax(scores, dim=-1), value).transpose(1, 2).flatten(2)


def read_positions(tokens: Tensor, past: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Positions [n] of tokens [B, n] after the past, and the mask [n, t + n] of what comes later."""
    before, count = past[0].shape[2], tokens.shape[1]
    position = torch.arange(count) + before
    later = torch.arange(before + count)[None, :] > position[:, None]
    return position, torch.zeros(count, before + count).masked_fill(later, -torch.inf)


def role(name: str) -> Role:
    """Role of a site by its module path."""
    if name == "proj_out":
        return "embedding"
    if ".conv" in name:
        return "conv"
    return "decoder" if ".decoder." in name else "linear"


def share_group(name: str) -> str:
    """Group of a site by its module path."""
    return _SHARING.sub(lambda found: ".self_attn.qkv" if found[1] else ".encoder_attn.kv", name)


def _size(size: int | Length) -> int | str:
    return size.name if isinstance(size, Length) else size
