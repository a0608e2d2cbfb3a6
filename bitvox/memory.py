"""What the system says of a process's memory; only Linux tells."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Literal


def memory(field: Literal["VmHWM", "VmRSS"], process: int | Literal["self"] = "self") -> int | None:
    """Peak (`VmHWM`) or present (`VmRSS`) resident set of a process in bytes; None where it is not told.

    Not getrusage: its maximum survives exec, so that a child begins with its parent's peak.
    """
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return None
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else None


def forget_peak() -> None:
    """Let this process's peak begin anew at its present size; where that is not allowed, it stays."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
