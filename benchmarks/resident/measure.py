"""Memory of each model in a process of its own; time of all in one process by turns; time by operator."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitvox.benchmarks.probe import memory, noise
from bitvox.compiler.frontend.session import MODEL, Session, run_model
from bitvox.exporters.onnx.session import SUFFIX, create_session, open_session, quiet_options

RATE = 16_000
LENGTHS = (3, 10)


def memory_in_fresh_process(folder: Path | None) -> dict[str, Any]:
    """Bytes resident when a model is loaded, at most until then, and after a run of each length."""
    command = [sys.executable, "-m", __name__, str(folder or "-")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _report_memory(folder: str) -> None:
    found: dict[str, Any] = {"runs": {}}
    if folder != "-":
        started = time.perf_counter()
        session = open_session(Path(folder), 1)
        found["seconds"] = time.perf_counter() - started
    found["resident"], found["peak"] = memory("VmRSS"), memory("VmHWM")
    if folder != "-":
        for seconds in LENGTHS:
            run_model(session, noise(seconds * RATE))
            found["runs"][str(seconds)] = memory("VmRSS")
    print(json.dumps(found))


def interleaved(folders: Sequence[Path], seconds: int, rounds: int) -> npt.NDArray[np.float64]:
    """CPU seconds of one thread for a run, [rounds, models], after one run to warm up.

    Of the thread and not of the wall: what else the machine does is not charged, but for the caches that it
    empties, and that falls on all models alike.
    """
    sessions: list[Session] = [open_session(folder, 1) for folder in folders]
    features = noise(seconds * RATE)
    times = np.zeros((rounds + 1, len(sessions)))
    for row in range(rounds + 1):
        for turn in range(len(sessions)):
            index = (row + turn) % len(sessions)
            started = time.thread_time()
            run_model(sessions[index], features)
            times[row, index] = time.thread_time() - started
    return times[1:]


def by_operator(folder: Path, seconds: int, rounds: int, scratch: Path) -> list[tuple[str, int, float]]:
    """Operator, nodes, and the least seconds of the wall that each node took, summed; longest first."""
    model = folder / f"{MODEL}{SUFFIX}"
    options = quiet_options(model, num_threads=1)
    options.enable_profiling = True
    options.profile_file_prefix = str(scratch / folder.name)
    session = create_session(model, options)
    for _ in range(rounds):
        session.run(None, {"samples": noise(seconds * RATE)[None]})
    events = json.loads(Path(session.end_profiling()).read_text())
    least: dict[tuple[str, str], float] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            key = event["args"]["op_name"], event["name"]
            least[key] = min(least.get(key, np.inf), event["dur"] / 1e6)
    nodes: dict[str, list[float]] = defaultdict(list)
    for (operator, _), duration in least.items():
        nodes[operator].append(duration)
    rows = [(operator, len(times), sum(times)) for operator, times in nodes.items()]
    return sorted(rows, key=lambda row: -row[2])


if __name__ == "__main__":
    _report_memory(sys.argv[1])
