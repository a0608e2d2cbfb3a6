"""Sums of u v^T over the frames that a site reads, in parts that can be added up side by side.

What a part adds, and in which order, does not depend on how many of them are under way at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from bitvox.compiler.frontend.model import Site
from bitvox.compiler.frontend.threads import side_by_side
from bitvox.compiler.passes.observers import columns

Part = Callable[[], object]

# Inputs on each side of a part of a product, and lags of a sliding convolution in one.
_WIDTH, _LAGS = 384, 16


def slides(site: Site) -> bool:
    """Whether every tap of a convolution sees the same signal, a frame later: H is block Toeplitz then.

    Kept as E[x_t x_{t+lag}^T] per lag it is a convolution's kernel times smaller: a positional convolution of
    128 taps would take gigabytes. What the ends of a clip add beyond the windows is counted in.
    """
    return site.conv is not None and site.conv.stride == 1 and site.conv.dilation == 1


def sums_of(site: Site) -> Tensor:
    """Zeros to add to: [groups, K, K]; of a convolution that slides, per lag, [groups, taps, C, C]."""
    groups = 1 if site.conv is None else site.conv.groups
    if slides(site):
        _, channels, kernel = site.shape
        return torch.zeros(groups, kernel, channels, channels)
    inputs = site.weights // site.channels
    return torch.zeros(groups, inputs, inputs)


def frames_of(site: Site, values: Tensor, most: int) -> Tensor:
    """What the site reads of its input for one clip, [groups, frames, K].

    `values` is [1, ..., K] of a linear, [1, C, T] of a conv1d, of which up to `most` frames count, evenly
    spread; of a convolution that slides the padded clip itself, [groups, C, T].
    """
    values, conv = values.detach(), site.conv
    if conv is None:
        return values.reshape(1, -1, values.shape[-1])
    if slides(site):
        padded = functional.pad(values[0], (conv.padding, conv.padding))
        return padded.reshape(conv.groups, -1, padded.shape[1])
    reach = (site.shape[2] - 1) * conv.dilation + 1
    frames = (values.shape[2] + 2 * conv.padding - reach) // conv.stride + 1
    count = min(frames, most)
    positions = (2 * torch.arange(count) + 1) * frames // (2 * count)
    return columns(site, values, positions).transpose(0, 1)


def count_of(site: Site, seen: Tensor) -> int:
    """Frames in what `frames_of` gave."""
    # A tap sees every sample of the padded clip but those that the other taps' windows end before.
    return seen.shape[2] if slides(site) else seen.shape[1]


def parts_of(site: Site, sums: Tensor, first: Tensor, second: Tensor) -> list[Part]:
    """What adds the sum of u v^T over a clip's frames (`frames_of`) to sums.

    Of a convolution that slides it is u_t v_{t+lag}^T. Where u is v, the lower triangle may be left out:
    `mirrored` fills it in.
    """
    if slides(site):
        lags = range(min(sums.shape[1], first.shape[2]))
        return [_lagged(sums, first, second, lags[at : at + _LAGS]) for at in lags[::_LAGS]]
    return [
        _block(sums[group], first[group], second[group], *pair)
        for group in range(sums.shape[0])
        for pair in _blocks(sums.shape[1], first is second)
    ]


def add_up(parts: Sequence[Part], threads: int) -> None:
    """Add parts up, at most `threads` of them at once."""

    def call(part: Part) -> None:
        with torch.inference_mode():
            part()

    side_by_side(call, parts, min(threads, len(parts)))


def mirrored(upper: Tensor) -> Tensor:
    """The symmetric matrix [K, K] of which `parts_of` gave the upper triangle, in place."""
    for rows, columns_ in _blocks(len(upper), True):
        if rows != columns_:
            upper[columns_, rows] = upper[rows, columns_].T
    return upper


def from_lags(ahead: Tensor, behind: Tensor) -> Tensor:
    """E[u v^T] [C * taps, C * taps], laid out as a weight is, from products per lag, [taps, C, C].

    `ahead` has E[u_t v_{t+lag}^T] and `behind` E[v_t u_{t+lag}^T].
    """
    taps, channels = ahead.shape[0], ahead.shape[1]
    # By lag from -(taps - 1) to taps - 1: a tap of the first, counted from the last, sees a window of it.
    lags = torch.cat([behind[1:].flip(0).mT, ahead]).permute(1, 2, 0).contiguous()
    windows = lags.as_strided((channels, taps, channels, taps), (lags.stride(0), 1, lags.stride(1), 1))
    return windows.flip(1).reshape(channels * taps, channels * taps)


def _blocks(inputs: int, upper: bool) -> list[tuple[slice, slice]]:
    count = -(-inputs // _WIDTH)
    edges = [slice(inputs * n // count, inputs * (n + 1) // count) for n in range(count)]
    return [(one, other) for one in edges for other in edges if not upper or one.start <= other.start]


def _block(sums: Tensor, first: Tensor, second: Tensor, rows: slice, columns_: slice) -> Part:
    return lambda: sums[rows, columns_].addmm_(first[:, rows].T, second[:, columns_])


def _lagged(sums: Tensor, first: Tensor, second: Tensor, lags: range) -> Part:
    length = first.shape[2]

    def add() -> None:
        for lag in lags:
            sums[:, lag] += first[:, :, : length - lag] @ second[:, :, lag:].mT

    return add
