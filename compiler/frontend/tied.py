"""A linear layer whose weight is also the table of an embedding: stored once, used twice."""

from __future__ import annotations

import torch
from torch.nn import functional


class TiedLinear(torch.nn.Linear):
    """A linear [N, K] without a bias; row n of its weight is the embedding of token n."""

    def __init__(self, weight: torch.nn.Parameter) -> None:
        outputs, depth = weight.shape
        super().__init__(depth, outputs, bias=False, device="meta")
        self.weight = weight

    def lookup(self, tokens: torch.Tensor) -> torch.Tensor:
        """Embeddings [..., K] of tokens [...]."""
        return functional.embedding(tokens, self.weight)
