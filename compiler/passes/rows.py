"""Rows of a weight that are rounded together, and what a rounding of them costs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bitvox.compiler.passes.quantizer import stored_steps

DAMPING = 0.01
"""Share of H's mean diagonal that is added to its diagonal at least: what makes it invertible."""

_CLIPS = tuple(1.0 - 0.05 * step for step in range(15))


@dataclass(frozen=True)
class Rows:
    """Rows of a weight that are rounded with one H; of a grouped convolution, with one for each group.

    Attributes:
        weights: [groups, rows, K], or without groups [rows, K]; so is all that belongs to them below.
        bits: Width of each row [rows], whole numbers in float32, alike in every group.
    """

    weights: Tensor
    bits: Tensor

    @cached_property
    def top(self) -> Tensor:
        """Codes of a row lie in [-top, top - 1]; [rows, 1]."""
        return (2.0 ** (self.bits - 1))[:, None]

    def some(self, of: Tensor) -> Rows:
        """Those rows alone."""
        return Rows(self.weights[..., of, :], self.bits[of])

    def nearest(self, steps: Tensor) -> Tensor:
        """Codes nearest to the weights, shaped as they are."""
        values = (self.weights / steps[..., None]).round_()
        return torch.minimum(torch.maximum(values, -self.top, out=values), self.top - 1, out=values)

    def lost(self, steps: Tensor, codes: Tensor) -> Tensor:
        """What the weights become less what they are, shaped as they are."""
        return (codes * steps[..., None]).sub_(self.weights)


def errors(rows: Rows, steps: Tensor, codes: Tensor, hessian: Tensor) -> Tensor:
    """d H d^T of each row: the mean squared error of its output a frame."""
    lost = rows.lost(steps, codes)
    return (lost @ hessian).mul_(lost).sum(dim=-1)


def ridge(hessian: Tensor, damping: float = DAMPING) -> Tensor:
    """That share of the mean diagonal of H, one number for each H; of a dead input, 1."""
    mean = hessian.diagonal(dim1=-2, dim2=-1).mean(dim=-1)
    return torch.where(mean > 0, damping * mean, 1.0)


def damped(hessian: Tensor, damping: float = DAMPING) -> Tensor:
    """H with its `ridge` added to the diagonal; a copy."""
    smooth = hessian.clone()
    smooth.diagonal(dim1=-2, dim2=-1).add_(ridge(hessian, damping)[..., None])
    return smooth


def widest_steps(rows: Rows) -> Tensor:
    """Steps of each row whose codes reach its largest weight, exact in float16."""
    return stored_steps(rows.weights.abs().amax(dim=-1) / (rows.top[:, 0] - 0.5))


def clipped_steps(rows: Rows, hessian: Tensor) -> Tensor:
    """Steps of each row for which rounding to nearest costs least, by the diagonal of H, exact in float16."""
    importance = hessian.diagonal(dim1=-2, dim2=-1)[..., None]
    largest = rows.weights.abs().amax(dim=-1)
    best, least = torch.zeros_like(largest), torch.full_like(largest, torch.inf)
    for clip in _CLIPS:
        steps = stored_steps(clip * largest / (rows.top[:, 0] - 0.5))
        lost = rows.lost(steps, rows.nearest(steps))
        found = (lost.square_() @ importance)[..., 0]
        best, least = torch.where(found < least, steps, best), torch.minimum(found, least)
    return best
