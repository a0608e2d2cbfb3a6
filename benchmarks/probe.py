"""One model in one fresh process: `python -m bitvox.benchmarks.probe TARGET FOLDER THREADS LENGTH...`.

Prints a JSON object with load and first-run seconds and the process's memory. FOLDER `-` loads nothing: the
memory of the runtime alone, which is subtracted. A process measures its own memory best when nothing else
ever lived in it.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bitvox.compiler.frontend.session import run_model
from bitvox.exporters.runner import open_session
from bitvox.exporters.targets import TARGETS
from bitvox.memory import memory


def noise(shape: int | Sequence[int]) -> np.ndarray:
    """Seeded white noise of unit variance as model input: a CTC model's time does not depend on the sound."""
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def main(target: str, folder: str, num_threads: str, *shape: str) -> None:
    """Load, run once, report."""
    importlib.import_module(f"{TARGETS[target]}.session")
    features = noise([int(length) for length in shape])
    found: dict[str, float | int | None] = {}
    if folder != "-":
        started = time.perf_counter()
        session = open_session(target, Path(folder), int(num_threads))
        found["load"] = time.perf_counter() - started
        started = time.perf_counter()
        run_model(session, features)
        found["first"] = time.perf_counter() - started
    found["resident"], found["peak"] = memory("VmRSS"), memory("VmHWM")
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
