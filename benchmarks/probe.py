"""One model in one fresh process: `python -m bitvox.benchmarks.probe TARGET FOLDER THREADS TOKENS LENGTH...`.

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
import numpy.typing as npt

from bitvox.compiler.frontend.graph_decoder import decoder_of
from bitvox.compiler.frontend.session import MODEL, Session, run_model
from bitvox.exporters.runner import open_session
from bitvox.exporters.targets import TARGETS
from bitvox.memory import memory

FloatArray = npt.NDArray[np.float32]

TOKENS_PER_SECOND = 4
"""Of speech, as a decoder writes it."""


def noise(shape: int | Sequence[int]) -> np.ndarray:
    """Seeded white noise of unit variance as model input: a CTC model's time does not depend on the sound."""
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def exercise(session: Session, features: FloatArray, tokens: int) -> None:
    """Run a model on its input; a decoder writes that many tokens of its own choice, one by one."""
    if MODEL in session.graphs:
        run_model(session, features)
        return
    graphs = decoder_of(session)
    state, token = graphs.encode(features), np.zeros((1, 1), np.int64)
    for _ in range(tokens):
        logits, state = graphs.step(state, token)
        token = logits.argmax(axis=1, keepdims=True)


def main(target: str, folder: str, num_threads: str, tokens: str, *shape: str) -> None:
    """Load, run once, report."""
    importlib.import_module(f"{TARGETS[target]}.session")
    features = noise([int(length) for length in shape])
    found: dict[str, float | int | None] = {}
    if folder != "-":
        started = time.perf_counter()
        session = open_session(target, Path(folder), int(num_threads))
        found["load"] = time.perf_counter() - started
        started = time.perf_counter()
        exercise(session, features, int(tokens))
        found["first"] = time.perf_counter() - started
    found["resident"], found["peak"] = memory("VmRSS"), memory("VmHWM")
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
