"""bitvox's own kernels as methods of the benchmark."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import bitvox.runtime_kernels as rk

Run = Callable[[], object]


def weight(bits: int, shape: tuple[int, ...], group_size: int | None, steps: bool = False) -> rk.PackedWeight:
    """Random codes with scales that half precision holds, or the nearest ones that fold into the codes."""
    rng = np.random.default_rng(bits)
    groups = shape[1] // group_size if group_size else 1
    scale = np.ldexp(rng.integers(1024, 2048, (shape[0], groups)).astype(np.float32), -16)
    if steps:
        scale = rk.step_scales(scale, bits)
    codes = rng.integers(0, 1 << bits, shape, dtype=np.uint8)
    return rk.pack(codes, bits, scale, None, group_size, steps)


def linear(
    bits: int,
    x: NDArray[np.float32],
    outputs: int,
    group_size: int | None = None,
    num_threads: int = 1,
    isa: str | None = None,
    steps: bool = False,
) -> Run:
    """A call of `linear`; `isa` names a path other than the default."""
    packed = weight(bits, (outputs, x.shape[1]), group_size, steps)
    out = np.empty((x.shape[0], outputs), np.float32)

    def run() -> object:
        return rk.linear(x, packed, num_threads=num_threads, out=out)

    if isa is None:
        return run

    def run_on_path() -> object:
        before = os.environ.get("BITVOX_ISA")
        os.environ["BITVOX_ISA"] = isa
        try:
            return run()
        finally:
            del os.environ["BITVOX_ISA"]
            if before is not None:
                os.environ["BITVOX_ISA"] = before

    return run_on_path


def conv1d(
    bits: int, x: NDArray[np.float32], shape: tuple[int, int, int], calibrated: bool = False, **options: Any
) -> Run:
    """A call of `conv1d` with codes of the given [N, C / groups, k]."""
    packed = weight(bits, shape, None)
    x_scale = 0.03 if calibrated else None
    return lambda: rk.conv1d(x, packed, x_scale=x_scale, **options)
