"""Rounding input by input, each making good what those before it lost: GPTQ, by the factor of H itself.

With the inputs in rising order of their power and H = U^T U, U upper triangular, d H d^T is the sum over i of
(sum over j >= i of U[i, j] d[j])^2. From the last input to the first each term has one new d: to take for it
what makes the term least is what GPTQ (arXiv 2210.17323) does, which gets the same numbers from a factor of
H's inverse, taking inputs in falling order of their power. The inverse would cost two factorisations more.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bitvox.compiler.passes import _rounding  # type: ignore[attr-defined]
from bitvox.compiler.passes.rows import DAMPING, Rows, damped, ridge

BLOCK = 128
"""Inputs that are rounded before what they lost is charged to all others at once."""

# Inputs of a block of a factor: one fits in a core's cache.
_CORNER = 384


@dataclass(frozen=True, eq=False)
class Elimination:
    """H, damped and factored: computed once for all rows and steps that are tried.

    Attributes:
        ridge: What is added to the diagonal of H [...].
        damped: H with it [..., K, K].
        order: Inputs in rising order of their power [..., K].
        factor: Upper Cholesky factor of it in that order [..., K, K]; what is below its diagonal means
            nothing.
    """

    ridge: Tensor
    damped: Tensor
    order: Tensor
    factor: Tensor

    @classmethod
    def of(cls, hessian: Tensor, damping: float = DAMPING) -> Elimination:
        """From H [..., K, K] and the share of its mean diagonal that is the ridge."""
        smooth = damped(hessian, damping)
        order = smooth.diagonal(dim1=-2, dim2=-1).argsort(dim=-1, stable=True)
        # Whole rows first, as they lie in memory.
        ordered = columns(_rows(smooth, order), order)
        return cls(ridge(hessian, damping), smooth, order, _factored(ordered))

    def divide(self, values: Tensor) -> Tensor:
        """values times the inverse of the damped H, [..., rows, K]."""
        ordered = columns(values, self.order).mT
        half = torch.linalg.solve_triangular(self.factor.mT, ordered, upper=False)
        whole = torch.linalg.solve_triangular(self.factor, half, upper=True)
        return columns(whole.mT, self.order.argsort(dim=-1))


def _factored(matrices: Tensor) -> Tensor:
    """Upper Cholesky factors of [..., K, K], in place and row by row in memory.

    A block at a time, for `torch.linalg.cholesky` spends as long again on clearing the other triangle of a
    large matrix, and lays it out column by column.
    """
    for first in range(0, matrices.shape[-1], _CORNER):
        last = first + _CORNER
        corner = torch.linalg.cholesky(matrices[..., first:last, first:last])
        matrices[..., first:last, first:last] = corner.mT
        right = torch.linalg.solve_triangular(corner, matrices[..., first:last, last:], upper=False)
        matrices[..., first:last, last:] = right
        for row in range(0, right.shape[-1], _CORNER):
            below = right[..., row : row + _CORNER].mT @ right[..., row:]
            matrices[..., last + row : last + row + _CORNER, last + row :] -= below
    return matrices


def columns(values: Tensor, order: Tensor) -> Tensor:
    """Values [..., rows, K] with their columns in the order [..., K]; a copy."""
    if order.numel() == order.shape[-1]:  # several times as fast
        return values[..., order.flatten()]
    return values.gather(-1, order[..., None, :].expand_as(values))


def _rows(values: Tensor, order: Tensor) -> Tensor:
    if order.numel() == order.shape[-1]:
        return values[..., order.flatten(), :]
    return values.gather(-2, order[..., None].expand_as(values))


def round_gptq(rows: Rows, steps: Tensor, elimination: Elimination) -> Tensor:
    """Codes by GPTQ with these steps."""
    # Input by input, so that what a step of the loops reads lies side by side.
    weights = batched(columns(rows.weights, elimination.order).mT)
    factor = batched(elimination.factor)
    owed, codes, lost = torch.zeros_like(weights), torch.empty_like(weights), torch.empty_like(weights)
    limits = row_limits(rows, steps)
    for last in range(weights.shape[1], 0, -BLOCK):
        first = max(0, last - BLOCK)
        _rounding.eliminate(factor, first, last, weights, owed, *limits, codes, lost)
        for group, matrix in enumerate(factor):
            owed[group, :first].addmm_(matrix[:first, first:last], lost[group, first:last])
    return columns(codes.mT.reshape(rows.weights.shape), elimination.order.argsort(dim=-1))


def row_limits(rows: Rows, steps: Tensor) -> tuple[Tensor, Tensor]:
    """Steps and tops as the loops take them, [groups, rows]."""
    return tuple(  # type: ignore[return-value]
        one.expand_as(steps).reshape(-1, steps.shape[-1]).contiguous() for one in (steps, rows.top[:, 0])
    )


def batched(values: Tensor) -> Tensor:
    """[groups, ...] as the loops take it, without a copy where it lies in order already."""
    return values.reshape(-1, *values.shape[-2:]).contiguous()
