"""Codes that keep a site's output, not its weights: rounding that knows how the inputs move together.

Everything here minimises d H d^T for every row of a weight by itself, d the row's rounding error and H the
second moments of the inputs (`input_moments`). Rows that share an H are rounded in one go, each with its own
step and its own width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bitvox.compiler.frontend.threads import side_by_side
from bitvox.compiler.passes.input_moments import DriftMoments, InputMoments
from bitvox.compiler.passes.plan import Rounding
from bitvox.compiler.passes.quantizer import stored_steps

_BLOCK = 64
_ROWS = 1024
_DAMPING = 0.01
_CLIPS = tuple(1.0 - 0.05 * step for step in range(15))
_SWEEPS = 2

# GPTQ hides some of what a coarse step loses, so that other steps than those for rounding to nearest may be
# best: at 2 and 3 bits these multiples of them leave 5 to 10 % less error than they do, at 4 bits 2 %.
_COARSE_BITS, _OTHER_STEPS = 3, (0.9, 1.12, 1.25)

# Small groups of channels are rounded many at once, as long as their H have no more numbers than this.
_TOGETHER = 2**24

STRENGTH = 0.75
"""Share of the drift of its input that a site's weights make good."""


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

    def codes_of(self, values: Tensor) -> Tensor:
        """Codes nearest to values in steps, overwritten, [..., rows]."""
        top = self.top[:, 0]
        return torch.minimum(torch.maximum(values.round_(), -top), top - 1)

    def nearest(self, steps: Tensor, weights: Tensor | None = None) -> Tensor:
        """Codes, shaped as the weights, of the rows or of other weights in their place."""
        values = (self.weights if weights is None else weights) / steps[..., None]
        return torch.minimum(torch.maximum(values.round_(), -self.top), self.top - 1)


def errors(rows: Rows, steps: Tensor, codes: Tensor, hessian: Tensor) -> Tensor:
    """d H d^T of each row: the mean squared error of its output a frame."""
    lost = codes * steps[..., None] - rows.weights
    return (lost @ hessian).mul_(lost).sum(dim=-1)


def damped(hessian: Tensor) -> Tensor:
    """H with 1 % of its mean diagonal added, so that it can be inverted; of a dead input, the identity."""
    mean = hessian.diagonal(dim1=-2, dim2=-1).mean(dim=-1)
    ridge = torch.where(mean > 0, _DAMPING * mean, 1.0)
    return hessian + ridge[..., None, None] * torch.eye(hessian.shape[-1])


def clipped_steps(rows: Rows, hessian: Tensor) -> Tensor:
    """Steps of each row for which rounding to nearest costs least, by the diagonal of H, exact in float16."""
    importance = hessian.diagonal(dim1=-2, dim2=-1)[..., None]
    largest = rows.weights.abs().amax(dim=-1)
    best, least = torch.zeros_like(largest), torch.full_like(largest, torch.inf)
    for clip in _CLIPS:
        steps = stored_steps(clip * largest / (rows.top[:, 0] - 0.5))
        lost = rows.nearest(steps) * steps[..., None] - rows.weights
        found = (lost.square_() @ importance)[..., 0]
        best, least = torch.where(found < least, steps, best), torch.minimum(found, least)
    return best


@dataclass(frozen=True, eq=False)
class Elimination:
    """What GPTQ needs of an H, whatever rows and steps: computed once for all that are tried.

    Attributes:
        order: Inputs in falling order of their power [..., K].
        factor: Upper Cholesky factor of the inverse of H in that order [..., K, K].
    """

    order: Tensor
    factor: Tensor

    @classmethod
    def of(cls, hessian: Tensor) -> Elimination:
        """From a damped H [..., K, K]."""
        order = hessian.diagonal(dim1=-2, dim2=-1).argsort(dim=-1, descending=True, stable=True)
        ordered = _columns(_columns(hessian, order).mT, order).mT
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(ordered))
        return cls(order, torch.linalg.cholesky(inverse, upper=True))


def round_gptq(rows: Rows, steps: Tensor, elimination: Elimination) -> Tensor:
    """Codes by GPTQ (arXiv 2210.17323) with these steps.

    Inputs go in falling order of their power; what rounding one loses, those still to come make good.
    """
    factor = elimination.factor
    # Input by input, so that a step of the loop reads what lies side by side.
    left = _columns(rows.weights, elimination.order).mT.contiguous()
    codes = torch.empty_like(left)
    for first in range(0, left.shape[-2], _BLOCK):
        last = min(first + _BLOCK, left.shape[-2])
        inside, block = factor[..., first:last, first:last], left[..., first:last, :]
        for index in range(last - first):
            values = block[..., index, :]
            code = rows.codes_of(values / steps)
            codes[..., first + index, :] = code
            error = (values - code * steps) / inside[..., index, index, None]
            onward = inside[..., index, index + 1 :, None]
            block[..., index + 1 :, :].addcmul_(onward, error[..., None, :], value=-1)
            values.copy_(error)
        left[..., last:, :] -= factor[..., first:last, last:].mT @ block
    return _columns(codes.mT, elimination.order.argsort(dim=-1))


def _columns(values: Tensor, order: Tensor) -> Tensor:
    """Values [..., rows, K] with their columns in the order [..., K]; a copy."""
    return values.gather(-1, order[..., None, :].expand_as(values))


def descend(rows: Rows, steps: Tensor, codes: Tensor, hessian: Tensor) -> Tensor:
    """Codes after one sweep of coordinate descent: each in turn becomes what is best given the others.

    d H d^T never grows but by the rounding of float32.
    """
    lost = codes * steps[..., None] - rows.weights
    codes, slope = codes.mT.contiguous(), (lost @ hessian).mT.contiguous()
    for first in range(0, codes.shape[-2], _BLOCK):
        last = min(first + _BLOCK, codes.shape[-2])
        inside, moved = hessian[..., first:last, first:last], torch.zeros_like(codes[..., first:last, :])
        local = slope[..., first:last, :].clone()
        for index in range(last - first):
            here = codes[..., first + index, :]
            curvature = inside[..., index, index, None].clamp(min=1e-30)
            wanted = rows.codes_of(here - local[..., index, :] / curvature / steps)
            change = (wanted - here).mul_(steps)
            here.copy_(wanted)
            local.addcmul_(inside[..., index, :, None], change[..., None, :])
            moved[..., index, :] = change
        slope += hessian[..., first:last, :].mT @ moved
    return codes.mT.contiguous()


def refitted_steps(rows: Rows, steps: Tensor, codes: Tensor, hessian: Tensor) -> Tensor:
    """The step of each row that is best for its codes (least squares in H), exact in float16."""
    weighted = codes @ hessian
    along, size = (weighted * rows.weights).sum(dim=-1), (weighted * codes).sum(dim=-1)
    fitted = torch.where((size > 0) & (along > 0), along / size.clamp(min=1e-30), steps)
    return stored_steps(fitted)


def compensated(weights: Tensor, hessian: Tensor, drift: Tensor) -> Tensor:
    """Weights that make good what the input lost before it came here, [groups, rows, K].

    They bring W x' nearest to W x in the mean over frames (least squares, ridge as in `damped`), x' what the
    site will read and x what it read at full precision: W + s W E[(x - x') x'^T] H^-1, H = E[x' x'^T]
    (Quantization Error Propagation, arXiv 2504.09629). At strength s below 1 less is taken on trust of the
    clips.

    Args:
        weights: W.
        hessian: H [groups, K, K].
        drift: E[(x - x') x'^T] [groups, K, K].
    """
    factor = torch.linalg.cholesky(damped(hessian))
    return weights + STRENGTH * torch.cholesky_solve((weights @ drift).mT, factor).mT


def round_rows(
    rows: Rows, hessian: Tensor, rounding: Rounding, originals: Tensor | None = None, threads: int = 1
) -> tuple[Tensor, Tensor]:
    """Steps and codes of the rows.

    Any but to nearest is GPTQ from the clipped steps and some others, then sweeps of `descend` and
    `refitted_steps`. Each row keeps the best that it met, so that none ever costs more than it does rounded
    to nearest, nor than the `originals` of compensated rows do.
    """
    if rounding == "nearest":
        return _nearest(rows)
    smooth = damped(hessian)
    elimination = Elimination.of(smooth)

    def part(numbers: Tensor) -> tuple[Tensor, Tensor]:
        some = Rows(rows.weights[..., numbers, :], rows.bits[numbers])
        others = () if originals is None else (Rows(originals[..., numbers, :], some.bits),)
        return _best_found(some, hessian, smooth, elimination, others)

    # So few that what a step of the loops works on stays in the cache.
    parts = side_by_side(part, torch.arange(len(rows.bits)).split(_ROWS), threads)
    return torch.cat([steps for steps, _ in parts], dim=-1), torch.cat([codes for _, codes in parts], dim=-2)


def _best_found(
    rows: Rows, hessian: Tensor, smooth: Tensor, elimination: Elimination, others: Sequence[Rows]
) -> tuple[Tensor, Tensor]:
    best = _Best(rows, hessian, *_nearest(rows))
    for other in others:
        best.offer(*_nearest(other))
    steps = clipped_steps(rows, hessian)
    best.offer(steps, rows.nearest(steps))
    best.offer(steps, round_gptq(rows, steps, elimination))
    coarse = rows.bits <= _COARSE_BITS
    if coarse.any():
        part = Rows(rows.weights[..., coarse, :], rows.bits[coarse])
        for multiple in _OTHER_STEPS:
            tried = stored_steps(multiple * steps[..., coarse])
            best.offer(tried, round_gptq(part, tried, elimination), coarse)
    for _ in range(_SWEEPS):
        best.offer(best.steps, descend(rows, best.steps, best.codes, smooth))
        best.offer(refitted_steps(rows, best.steps, best.codes, smooth), best.codes)
    return best.steps, best.codes


def _nearest(rows: Rows) -> tuple[Tensor, Tensor]:
    steps = stored_steps(rows.weights.abs().amax(dim=-1) / (rows.top[:, 0] - 0.5))
    return steps, rows.nearest(steps)


class _Best:
    """Of several roundings the one that costs least, row by row."""

    def __init__(self, rows: Rows, hessian: Tensor, steps: Tensor, codes: Tensor) -> None:
        self._rows, self._hessian = rows, hessian
        self.steps, self.codes = steps.clone(), codes
        self._least = errors(rows, steps, codes, hessian)

    def offer(self, steps: Tensor, codes: Tensor, of: Tensor | None = None) -> None:
        """Another rounding of all rows, or of some of them."""
        some = torch.ones_like(self._rows.bits, dtype=torch.bool) if of is None else of
        rows = Rows(self._rows.weights[..., some, :], self._rows.bits[some])
        found = errors(rows, steps, codes, self._hessian)
        better = found < self._least[..., some]
        self.steps[..., some] = torch.where(better, steps, self.steps[..., some])
        self.codes[..., some, :] = torch.where(better[..., None], codes, self.codes[..., some, :])
        self._least[..., some] = torch.where(better, found, self._least[..., some])


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
        wanted, originals = stacked[part], None
        if drift is not None:
            moved = torch.stack([drift.matrix(group) for group in numbers])
            originals = wanted.repeat(1, len(widths), 1)
            wanted = compensated(wanted, hessian, moved)
        rows = Rows(wanted.repeat(1, len(widths), 1), bits)
        found_steps, found_codes = round_rows(rows, hessian, rounding, originals, within)
        by_width = (len(part), len(widths), height)
        codes[:, part] = found_codes.to(torch.int8).reshape(*by_width, -1).transpose(0, 1)
        steps[:, part] = found_steps.reshape(by_width).transpose(0, 1)
        return errors(rows, found_steps, found_codes, hessian).reshape(by_width).double().sum(dim=(0, 2))

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
