"""Plain attention without a mask, registered with transformers under one name.

The stock eager attention builds an all-true mask from the length and the fused one exports NaN guards; one
clip at a time needs neither, and the exported graph is smaller and faster without them.
"""

from __future__ import annotations

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

ATTENTION = "bitvox_plain"


def _plain_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    position_bias: torch.Tensor | None = None,
    **unused: object,
) -> tuple[torch.Tensor, None]:
    """softmax(q k^T * scaling + biases) v over [B, heads, frames, width], as [B, frames, heads, width].

    There is no mask: what comes in its place is a bias of the positions, as Parakeet hands it on.
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query * scale, key.transpose(2, 3))
    for bias in (attention_mask, position_bias):
        if bias is not None:
            scores = scores + bias
    weights = torch.softmax(scores, dim=-1)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), None


def _no_mask(*args: object, **kwargs: object) -> None:
    return None


AttentionInterface.register(ATTENTION, _plain_attention)
AttentionMaskInterface.register(ATTENTION, _no_mask)
