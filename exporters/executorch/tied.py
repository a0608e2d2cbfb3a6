"""A weight that is also the table of an embedding, where no operator of bitvox's is: stored once, used twice.

XNNPACK keeps the weight of a linear to itself, and what looks rows up would need another copy. Here both read
one constant of the program. The product has the weight on its left: a kernel of ExecuTorch's then takes it as
it lies.
"""

from __future__ import annotations

import torch
from torch import Tensor


def tied_product(x: Tensor, weight: Tensor, scale: Tensor | None) -> Tensor:
    """[..., N] of x [..., K] and weight [N, K], of codes where there is a scale [N]."""
    rows = x.reshape(-1, x.shape[-1])
    product = torch.mm(weight.float(), rows.t())
    scaled = product if scale is None else product * scale[:, None]
    return scaled.t().reshape(*x.shape[:-1], weight.shape[0])


def tied_rows(tokens: Tensor, weight: Tensor, scale: Tensor | None) -> Tensor:
    """Rows [..., K] of weight [N, K] by tokens [...]."""
    flat = tokens.reshape(-1)
    rows = weight.index_select(0, flat).float()
    scaled = rows if scale is None else rows * scale.index_select(0, flat)[:, None]
    return scaled.reshape(*tokens.shape, weight.shape[1])


class TiedProduct(torch.nn.Module):
    """`tied_product` with a weight of its own."""

    weight: Tensor
    scale: Tensor | None

    def __init__(self, weight: Tensor, scale: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] -> [..., N]."""
        return tied_product(x, self.weight, self.scale)


class TiedRows(TiedProduct):
    """`tied_rows` with a weight of its own, which a program holds once beside an equal one."""

    def forward(self, tokens: Tensor) -> Tensor:
        """[...] -> [..., K]."""
        return tied_rows(tokens, self.weight, self.scale)
