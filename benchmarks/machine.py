"""What numbers were measured on."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

# What decides which integer kernels a CPU runs.
_TELLING_FLAGS = re.compile(r"avx\w*|fma|ssse3|sse4_\d|amx\w*|asimd\w*|i8mm|sve\w*|sme\w*|bf16|neon")


def machine() -> dict[str, str]:
    """CPU, its telling flags, system and load now; where /proc/cpuinfo does not exist, what Python knows."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    name = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    telling = [flag for flag in (flags[1].split() if flags else []) if _TELLING_FLAGS.fullmatch(flag)]
    return {
        "cpu": name[1] if name else platform.processor() or platform.machine(),
        "flags": " ".join(sorted(telling)),
        "cores": str(os.cpu_count()),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": f"{os.getloadavg()[0]:.2f}",
    }
