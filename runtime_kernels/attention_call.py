"""Attention in float as a Python function, for tests and for what an exported program means."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitvox.runtime_kernels import _native  # type: ignore[attr-defined]


def attention(
    q: NDArray[np.float32],
    k: NDArray[np.float32],
    v: NDArray[np.float32],
    scale: float,
    mask: Any = None,
    num_threads: int = 1,
) -> NDArray[np.float32]:
    """Queries [B, M, H, D] over keys and values [B, T, H, D]: float32 [B, M, H, D].

    Args:
        q, k, v: float32, dense.
        scale: Of the products of queries and keys; above 0.
        mask: float32 added to the scaled products, broadcast to [B, H, M, T].
        num_threads: 1..256.

    Raises:
        ValueError: Shapes that do not fit each other, or options out of range.
    """
    batch, queries, heads, _ = q.shape
    if k.shape != v.shape or (batch, heads, q.shape[3]) != (k.shape[0], *k.shape[2:]):
        raise ValueError(f"k and v: shapes {k.shape} and {v.shape}; they do not match queries {q.shape}")
    if not 1 <= num_threads <= 256:
        raise ValueError(f"num_threads: {num_threads}; 1..256 is needed")
    if mask is not None:
        mask = np.ascontiguousarray(np.broadcast_to(mask, (batch, heads, queries, k.shape[1])), np.float32)
    y: NDArray[np.float32] = _native.attention(q, k, v, mask, scale, num_threads)
    return y
