"""Our AVX2 path beside float32 that is limited to AVX2 too: what a CPU without AVX512 would see.

ONNX Runtime cannot be limited; PyTorch's MKL and oneDNN can, by variables that count only at the start of a
process. Hence a child, in which both are interleaved.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np

from bitvox.benchmarks.kernels import ours, torch_peers
from bitvox.benchmarks.kernels.timing import Run, interleaved

LIMITS = {
    "BITVOX_ISA": "avx2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
}
SHAPES = ((768, 768), (768, 3072))
WIDTHS = range(2, 9)
ROWS = 50


def in_child(seconds: float) -> list[dict[str, Any]]:
    """Rows like those of the other suites: k, n, m and the microseconds of every round."""
    command = [sys.executable, "-m", "bitvox.benchmarks.kernels.avx2_alone", str(seconds)]
    result = subprocess.run(command, env={**os.environ, **LIMITS}, check=True, stdout=subprocess.PIPE)
    rows: list[dict[str, Any]] = json.loads(result.stdout)
    return rows


def measure(seconds: float) -> list[dict[str, Any]]:
    """The same, in a process that is limited already."""
    torch_peers.use_one_thread()
    rows = []
    for depth, outputs in SHAPES:
        x = np.random.default_rng(ROWS).standard_normal((ROWS, depth)).astype(np.float32)
        methods: dict[str, Run] = {f"ours {bits}": ours.linear(bits, x, outputs) for bits in WIDTHS}
        methods["torch fp32"] = torch_peers.fp32(x, outputs)
        us = {name: timing.rounds for name, timing in interleaved(methods, seconds).items()}
        rows.append({"k": depth, "n": outputs, "m": ROWS, "us": us})
    return rows


if __name__ == "__main__":
    print(json.dumps(measure(float(sys.argv[1]))))
