"""Memory of each model in a process of its own; time of all in one process by turns."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitvox.benchmarks.probe import noise
from bitvox.benchmarks.resident.variants import Form
from bitvox.compiler.frontend.session import run_model
from bitvox.exporters.runner import open_session
from bitvox.exporters.targets import TARGETS
from bitvox.memory import memory

RATE = 16_000
LENGTHS = (3, 10)


def memory_in_fresh_process(target: str, folder: Path | None) -> dict[str, Any]:
    """Bytes resident when a model is loaded, at most until then, and after a run of each length.

    No folder: of a process that has imported the runtime and loaded nothing.
    """
    command = [sys.executable, "-m", __name__, target, str(folder or "-")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _report_memory(target: str, folder: str) -> None:
    importlib.import_module(f"{TARGETS[target]}.session")
    found: dict[str, Any] = {"runs": {}}
    if folder != "-":
        started = time.perf_counter()
        session = open_session(target, Path(folder), 1)
        found["seconds"] = time.perf_counter() - started
    found["resident"], found["peak"] = memory("VmRSS"), memory("VmHWM")
    if folder != "-":
        for seconds in LENGTHS:
            run_model(session, noise(seconds * RATE))
            found["runs"][str(seconds)] = memory("VmRSS")
    print(json.dumps(found))


def interleaved(models: Sequence[tuple[Form, Path]], seconds: int, rounds: int) -> npt.NDArray[np.float64]:
    """CPU seconds of one thread for a run, [rounds, models], after one run to warm up.

    Of the thread and not of the wall: what else the machine does is not charged, but for the caches that it
    empties, and that falls on all models alike.
    """
    sessions = [open_session(form.target, folder, 1) for form, folder in models]
    features = noise(seconds * RATE)
    times = np.zeros((rounds + 1, len(sessions)))
    for row in range(rounds + 1):
        for turn in range(len(sessions)):
            index = (row + turn) % len(sessions)
            started = time.thread_time()
            run_model(sessions[index], features)
            times[row, index] = time.thread_time() - started
    return times[1:]


if __name__ == "__main__":
    _report_memory(*sys.argv[1:])
