"""A compile in a process of its own with nothing cached, and what it took."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bitvox.errors import RequestError
from bitvox.memory import memory

_POLL = 0.1


@dataclass(frozen=True)
class Compiled:
    """What a fresh process wrote on stdout as JSON, what it told on stderr, and what it took.

    Attributes:
        report: The JSON.
        told: Lines of stderr.
        seconds: By the clock; `cpu_seconds`: of computing.
        peak_memory: Largest resident set, in bytes; None where it is not told.
    """

    report: dict[str, Any]
    told: tuple[str, ...]
    seconds: float
    cpu_seconds: float
    peak_memory: int | None


def compile_afresh(command: Sequence[str]) -> Compiled:
    """Run the command line, which has `--json`, and watch its memory.

    Raises:
        RequestError: It failed; what it said is on stderr.
    """
    words = [sys.executable, "-c", "from bitvox.cli import main; main()", *command]
    with (
        tempfile.TemporaryDirectory() as cache,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as told,
    ):
        started, computed = time.monotonic(), _children_seconds()
        environment = {**os.environ, "BITVOX_CACHE": cache}
        process = subprocess.Popen(words, stdout=out, stderr=told, env=environment)
        peak = None
        while process.poll() is None:
            peak = max(filter(None, (peak, memory("VmHWM", process.pid))), default=None)
            time.sleep(_POLL)
        seconds = time.monotonic() - started
        told.seek(0)
        lines = tuple(told.read().splitlines())
        if process.returncode:
            print(*lines, sep="\n", file=sys.stderr)
            raise RequestError(f"bitvox compile: exit code {process.returncode} (its message is above)")
        out.seek(0)
        return Compiled(json.load(out), lines, seconds, _children_seconds() - computed, peak)


def _children_seconds() -> float:
    """What processes that this one started, and that have ended, have computed."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
