"""Rounding on grids that the product does not have: in groups, off zero, uneven, in turned coordinates."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bitvox.compiler.passes.elimination import Elimination
from bitvox.compiler.passes.quantizer import stored_steps

Grid = Tensor
"""Levels in steps, rising [2^bits]."""

_CLIPS = tuple(1.0 - 0.05 * number for number in range(16))
_OTHER_STEPS = (1.0, 0.9, 1.12, 1.25)
_BLOCK = 64


def even(bits: int) -> Grid:
    """-2^(bits-1) to 2^(bits-1) - 1: the product's."""
    return torch.arange(-(2 ** (bits - 1)), 2 ** (bits - 1)).float()


def offset(bits: int) -> Grid:
    """The same, half a step higher: as many levels above zero as below."""
    return even(bits) + 0.5


def gaussian(bits: int) -> Grid:
    """Lloyd's levels for a normal distribution, least in mean squared error."""
    normal = torch.distributions.Normal(0.0, 1.0)
    values = normal.icdf((torch.arange(20_000) + 0.5) / 20_000)
    levels = torch.linspace(-1.5, 1.5, 2**bits)
    for _ in range(200):
        nearest = torch.bucketize(values, (levels[1:] + levels[:-1]) / 2)
        levels = torch.stack([values[nearest == number].mean() for number in range(2**bits)])
    return levels


def round_on(
    wanted: Tensor, hessian: Tensor, grid: Grid, group: int | None, sweeps: int, damping: float
) -> Tensor:
    """Weights [N, K] on a grid: GPTQ from some steps, then sweeps of coordinate descent and refitted steps.

    Args:
        wanted: What is rounded [N, K].
        hessian: H [K, K].
        grid: The levels.
        group: Inputs that share a step; None is all.
        sweeps: Of coordinate descent.
        damping: Of H, see `rows.ridge`.
    """
    size = wanted.shape[1] if group is None else min(group, wanted.shape[1])
    elimination = Elimination.of(hessian, damping)
    steps = torch.cat(
        [
            _clipped(part, importance, grid).expand(part.shape)
            for part, importance in zip(
                wanted.split(size, dim=1), hessian.diagonal().split(size), strict=True
            )
        ],
        dim=1,
    )
    best = _Kept(wanted, hessian, steps, _eliminate(wanted, steps, grid, elimination))
    for multiple in _OTHER_STEPS[1:]:
        tried = stored_steps(multiple * steps)
        best.offer(tried, _eliminate(wanted, tried, grid, elimination))
    for _ in range(sweeps):
        best.offer(best.steps, _descend(wanted, best.steps, best.codes, grid, elimination.damped))
        best.offer(_refit(wanted, best.codes, hessian, size), best.codes)
    return best.codes * best.steps


def rotated(wanted: Tensor, hessian: Tensor, rounded: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Weights that were rounded in turned coordinates, and turned back.

    The turn is a Sylvester-Hadamard matrix on each run of inputs as long as the largest power of two, up to
    128, that divides their number; of an odd number it is none.
    """
    inputs = wanted.shape[1]
    size = min(128, inputs & -inputs)
    turn = torch.ones(1, 1)
    while turn.shape[0] < size:
        turn = torch.cat([torch.cat([turn, turn], 1), torch.cat([turn, -turn], 1)])
    whole = torch.block_diag(*[turn / size**0.5] * (inputs // size))
    return rounded(wanted @ whole, whole.T @ hessian @ whole) @ whole.T


class _Kept:
    """Of several roundings the one that costs least, row by row."""

    def __init__(self, wanted: Tensor, hessian: Tensor, steps: Tensor, codes: Tensor) -> None:
        self._wanted, self._hessian = wanted, hessian
        self.steps, self.codes = steps, codes
        self._least = self._cost(steps, codes)

    def offer(self, steps: Tensor, codes: Tensor) -> None:
        """Another rounding of all rows."""
        found = self._cost(steps, codes)
        better = (found < self._least)[:, None]
        self.steps, self.codes = (
            torch.where(better, one, other) for one, other in ((steps, self.steps), (codes, self.codes))
        )
        self._least = torch.minimum(found, self._least)

    def _cost(self, steps: Tensor, codes: Tensor) -> Tensor:
        lost = codes * steps - self._wanted
        return ((lost @ self._hessian) * lost).sum(dim=1)


def _levels(values: Tensor, grid: Grid) -> Tensor:
    return grid[torch.bucketize(values.contiguous(), (grid[1:] + grid[:-1]) / 2)]


def _clipped(part: Tensor, importance: Tensor, grid: Grid) -> Tensor:
    """The step [N, 1] for which rounding to nearest costs least, by the diagonal of H."""
    largest = part.abs().amax(dim=1, keepdim=True).clamp(min=1e-8)
    tried = torch.stack([stored_steps(clip * largest / grid.abs().max()) for clip in _CLIPS])
    costs = torch.stack([(_levels(part / step, grid) * step - part).square() @ importance for step in tried])
    return tried.gather(0, costs.argmin(dim=0)[None, :, None])[0]


def _eliminate(wanted: Tensor, steps: Tensor, grid: Grid, elimination: Elimination) -> Tensor:
    """GPTQ, input by input."""
    order, factor = elimination.order, elimination.factor
    weights, ordered = (one[:, order].T.contiguous() for one in (wanted, steps))
    codes, lost, owed = torch.empty_like(weights), torch.empty_like(weights), torch.zeros_like(weights)
    for last in range(len(weights), 0, -_BLOCK):
        first = max(0, last - _BLOCK)
        for index in reversed(range(first, last)):
            charged = owed[index] + factor[index, index + 1 : last] @ lost[index + 1 : last]
            values = weights[index] - charged / factor[index, index]
            codes[index] = _levels(values / ordered[index], grid)
            lost[index] = codes[index] * ordered[index] - weights[index]
        owed[:first] += factor[:first, first:last] @ lost[first:last]
    return codes[order.argsort()].T


def _descend(wanted: Tensor, steps: Tensor, codes: Tensor, grid: Grid, hessian: Tensor) -> Tensor:
    slope = ((codes * steps - wanted) @ hessian).T.contiguous()
    found, across = codes.T.contiguous(), steps.T.contiguous()
    for index, step in enumerate(across):
        best = _levels(found[index] - slope[index] / hessian[index, index].clamp(min=1e-30) / step, grid)
        slope += hessian[index, :, None] * ((best - found[index]) * step)
        found[index] = best
    return found.T


def _refit(wanted: Tensor, codes: Tensor, hessian: Tensor, size: int) -> Tensor:
    """The steps of each row's groups that are best for its codes together (least squares in H)."""
    parts = codes.split(size, dim=1)
    apart = codes.new_zeros(len(codes), len(parts), codes.shape[1])
    for number, part in enumerate(parts):
        apart[:, number, number * size : number * size + part.shape[1]] = part
    weighted = apart @ hessian
    square, along = weighted @ apart.mT, weighted @ wanted[:, :, None]
    ridge = 1e-6 * square.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None] + 1e-20
    found = torch.linalg.solve(square + ridge * torch.eye(len(parts)), along)[:, :, 0]
    return stored_steps(found.clamp(min=0)).repeat_interleave(size, dim=1)[:, : codes.shape[1]]
