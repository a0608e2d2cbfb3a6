"""Codes that keep a site's output, not its weights: rounding that knows how the inputs move together.

Everything here minimises d H d^T for every row of a weight by itself, d the row's rounding error and H the
second moments of the inputs (`input_moments`). Rows that share an H are rounded in one go, each with its own
step and its own width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from bitvox.compiler.frontend.threads import side_by_side
from bitvox.compiler.passes import _rounding  # type: ignore[attr-defined]
from bitvox.compiler.passes.elimination import BLOCK, Elimination, batched, round_gptq, row_limits
from bitvox.compiler.passes.input_moments import DriftMoments, InputMoments
from bitvox.compiler.passes.plan import Rounding
from bitvox.compiler.passes.quantizer import stored_steps
from bitvox.compiler.passes.rows import Rows, clipped_steps, errors, widest_steps

_ROWS = 1024
_SWEEPS = 2

# An error that follows from others is off by some units of float32; a row that would be better by less stays.
_SURELY = 1 - 1e-5

# GPTQ hides some of what a coarse step loses, so that other steps than those for rounding to nearest may be
# best: at 2 and 3 bits these multiples of them leave 5 to 10 % less error than they do, at 4 bits 2 %.
_COARSE_BITS, _OTHER_STEPS = 3, (0.9, 1.12, 1.25)

# Small groups of channels are rounded many at once, as long as their H have no more numbers than this.
_TOGETHER = 2**24

STRENGTH = 0.75
"""Share of the drift of its input that a site's weights make good."""


def compensated(weights: Tensor, drift: Tensor, elimination: Elimination) -> Tensor:
    """Weights that make good what the input lost before it came here, [groups, rows, K].

    They bring W x' nearest to W x in the mean over frames (least squares, ridge as in `damped`), x' what the
    site will read and x what it read at full precision: W + s W E[(x - x') x'^T] H^-1, H = E[x' x'^T]
    (Quantization Error Propagation, arXiv 2504.09629). At strength s below 1 less is taken on trust of the
    clips.

    Args:
        weights: W.
        drift: E[(x - x') x'^T] [groups, K, K].
        elimination: Of H.
    """
    return weights + STRENGTH * elimination.divide(weights @ drift)


def descend(rows: Rows, steps: Tensor, codes: Tensor, hessian: Tensor, slope: Tensor) -> Tensor:
    """Codes after one sweep of coordinate descent: each in turn becomes what is best given the others.

    d H d^T never grows but by the rounding of float32. `slope` is d H, shaped as the codes.
    """
    # Copies, of a single row too, whose transpose lies in order as it is.
    slope, found = (batched(one.mT.clone(memory_format=torch.contiguous_format)) for one in (slope, codes))
    matrix, limits = batched(hessian), row_limits(rows, steps)
    for first in range(0, slope.shape[1], BLOCK):
        last = min(first + BLOCK, slope.shape[1])
        moved = torch.empty_like(slope[:, first:last])
        _rounding.descend(matrix, first, last, slope, *limits, found, moved)
        for group, change in enumerate(moved):
            slope[group, last:].addmm_(matrix[group, last:, first:last], change)
    return found.mT.reshape(codes.shape)


class RoundedRows(NamedTuple):
    """Steps [..., rows] and codes [..., rows, K] of rows, and what they cost (`rows.errors`) [..., rows]."""

    steps: Tensor
    codes: Tensor
    errors: Tensor


def round_nearest(rows: Rows, hessian: Tensor) -> RoundedRows:
    """The rows to nearest, with no look at what they read."""
    steps, codes = _nearest(rows)
    return RoundedRows(steps, codes, errors(rows, steps, codes, hessian))


def round_rows(
    rows: Rows,
    hessian: Tensor,
    elimination: Elimination,
    originals: Tensor | None = None,
    threads: int = 1,
) -> RoundedRows:
    """The rows by GPTQ from the clipped steps and some others, then sweeps of `descend`.

    Each row keeps the best that it met, so that none ever costs more than it does rounded to nearest, nor
    than the `originals` of compensated rows do.
    """

    def part(numbers: Tensor) -> RoundedRows:
        some = rows.some(numbers)
        others = () if originals is None else (Rows(originals[..., numbers, :], some.bits),)
        return _best_found(some, hessian, elimination, others)

    parts = side_by_side(part, torch.arange(len(rows.bits)).split(_ROWS), threads)
    return RoundedRows(
        torch.cat([one.steps for one in parts], dim=-1),
        torch.cat([one.codes for one in parts], dim=-2),
        torch.cat([one.errors for one in parts], dim=-1),
    )


def _best_found(rows: Rows, hessian: Tensor, elimination: Elimination, others: Sequence[Rows]) -> RoundedRows:
    best = Best(rows, hessian, *_nearest(rows))
    for other in others:
        best.offer(*_nearest(other))
    steps = clipped_steps(rows, hessian)
    best.offer(steps, rows.nearest(steps))
    best.offer(steps, round_gptq(rows, steps, elimination))
    coarse = rows.bits <= _COARSE_BITS
    if coarse.any():
        part = rows.some(coarse)
        for multiple in _OTHER_STEPS:
            tried = stored_steps(multiple * steps[..., coarse])
            best.offer(tried, round_gptq(part, tried, elimination), coarse)
    for _ in range(_SWEEPS):
        best.descend(elimination)
        best.refit()
    return RoundedRows(best.steps, best.codes, best.errors)


def _nearest(rows: Rows) -> tuple[Tensor, Tensor]:
    """Steps and codes with no look at what the rows read."""
    steps = widest_steps(rows)
    return steps, rows.nearest(steps)


class Best:
    """Of several roundings the one that costs least, row by row.

    Attributes:
        steps: [..., rows]; `codes`: [..., rows, K].
        errors: What they cost, `rows.errors` [..., rows].
    """

    def __init__(self, rows: Rows, hessian: Tensor, steps: Tensor, codes: Tensor) -> None:
        self._rows, self._hessian = rows, hessian
        self.steps, self.codes = steps.clone(), codes
        self._slope, self.errors = self._judged(rows, steps, codes)

    def offer(self, steps: Tensor, codes: Tensor, of: Tensor | None = None) -> None:
        """Another rounding of all rows, or of some of them."""
        rows, part = (self._rows, slice(None)) if of is None else (self._rows.some(of), of)
        slope, found = self._judged(rows, steps, codes)
        better = found < self.errors[..., part]
        self.steps[..., part] = torch.where(better, steps, self.steps[..., part])
        self.errors[..., part] = torch.where(better, found, self.errors[..., part])
        better = better[..., None]
        self.codes[..., part, :] = torch.where(better, codes, self.codes[..., part, :])
        self._slope[..., part, :] = torch.where(better, slope, self._slope[..., part, :])

    def descend(self, elimination: Elimination) -> None:
        """Offer the codes after a sweep of `descend` in the damped H."""
        slope = self._rows.lost(self.steps, self.codes).mul_(elimination.ridge[..., None, None])
        slope.add_(self._slope)
        self.offer(self.steps, descend(self._rows, self.steps, self.codes, elimination.damped, slope))

    def refit(self) -> None:
        """Take the step of each row that is best for its codes (least squares in H), exact in float16.

        With w + d = c s, all of it follows from d H d^T, d H w^T and w H w^T: a step r times as large has
        d' = r d + (r - 1) w.
        """
        between, energy = (self._slope * self._rows.weights).sum(dim=-1), self._energy
        along, size = between + energy, self.errors + 2 * between + energy
        ratio = torch.where((size > 0) & (along > 0), along / size.clamp(min=1e-30), 1.0)
        tried = stored_steps(ratio * self.steps)
        ratio = tried / self.steps
        found = ratio**2 * self.errors + 2 * ratio * (ratio - 1) * between + (ratio - 1) ** 2 * energy
        better = found < _SURELY * self.errors
        ratio = torch.where(better, ratio, 1.0)[..., None]
        self.steps, self.errors = (
            torch.where(better, tried, self.steps),
            torch.where(better, found, self.errors),
        )
        self._slope.mul_(ratio).addcmul_(self._weighted, ratio - 1)

    @cached_property
    def _weighted(self) -> Tensor:
        """w H."""
        return self._rows.weights @ self._hessian

    @cached_property
    def _energy(self) -> Tensor:
        """w H w^T."""
        return (self._weighted * self._rows.weights).sum(dim=-1)

    def _judged(self, rows: Rows, steps: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """d H and d H d^T."""
        lost = rows.lost(steps, codes)
        slope = lost @ self._hessian
        return slope, (slope * lost).sum(dim=-1)


@dataclass(frozen=True, eq=False)
class RoundedGroup:
    """The weights of a share group at one width.

    Attributes:
        codes: Of each member [N, ...], int8; `steps`: [N], float32.
        error: Mean squared error of the members' outputs a frame, summed over their channels.
    """

    codes: tuple[Tensor, ...]
    steps: tuple[Tensor, ...]
    error: float


def round_group(
    weights: Sequence[Tensor],
    widths: Sequence[int],
    moments: InputMoments,
    rounding: Rounding,
    drift: DriftMoments | None = None,
    threads: int = 1,
) -> dict[int, RoundedGroup]:
    """The weights [N, ...] of sites that read one input, rounded at each width.

    Members and widths are rows of one problem: they share H. With `drift` (`drift.Walk.reach`), it is
    `compensated` weights that are rounded. `threads` changes no code.
    """
    members = [weight.detach().reshape(moments.groups, -1, moments.inputs) for weight in weights]
    stacked = torch.cat(members, dim=1)
    height = stacked.shape[1]
    codes = torch.empty((len(widths), *stacked.shape), dtype=torch.int8)
    steps = torch.empty((len(widths), moments.groups, height))
    bits = torch.tensor(widths, dtype=torch.float32).repeat_interleave(height)
    together = max(1, _TOGETHER // moments.inputs**2)

    parts = torch.arange(moments.groups).split(together)
    within = threads if len(parts) == 1 else 1

    def round_part(part: Tensor) -> Tensor:
        numbers = part.tolist()
        hessian = torch.stack([moments.hessian(group) for group in numbers])
        found = rounded(part, hessian, None if drift is None else [drift.matrix(group) for group in numbers])
        by_width = (len(part), len(widths), height)
        codes[:, part] = found.codes.to(torch.int8).reshape(*by_width, -1).transpose(0, 1)
        steps[:, part] = found.steps.reshape(by_width).transpose(0, 1)
        return found.errors.reshape(by_width).double().sum(dim=(0, 2))

    def rounded(part: Tensor, hessian: Tensor, moved: list[Tensor] | None) -> RoundedRows:
        originals = stacked[part]
        rows = Rows(originals.repeat(1, len(widths), 1), bits)
        if rounding == "nearest":
            return round_nearest(rows, hessian)
        elimination = Elimination.of(hessian, moments.damping)
        if moved is None:
            return round_rows(rows, hessian, elimination, None, within)
        wanted = compensated(originals, torch.stack(moved), elimination).repeat(1, len(widths), 1)
        return round_rows(Rows(wanted, bits), hessian, elimination, rows.weights, within)

    lost = torch.stack(side_by_side(round_part, parts, threads)).sum(dim=0)
    heights = [member.shape[1] for member in members]
    return {
        width: RoundedGroup(
            codes=tuple(
                part.reshape(weight.shape)
                for part, weight in zip(codes[index].split(heights, dim=1), weights, strict=True)
            ),
            steps=tuple(part.reshape(-1) for part in steps[index].split(heights, dim=1)),
            error=float(lost[index]),
        )
        for index, width in enumerate(widths)
    }
