"""Instructions per call of a 256 x 256 linear, by emulation: a measure that no noise touches.

`python tests/kernels/instructions.py` records them in `instructions.json`, the guard that `test_instructions`
holds the kernels to.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from native_build import BUILD, build_arm, build_native, run

RECORD = Path(__file__).with_name("instructions.json")
ROWS = (1, 16)
WIDTHS = range(2, 9)
ARM = {"neon": "cortex-a53", "neon_dotprod": "cortex-a76", "neon_i8mm": "max,sve=off"}


def arm_command(cpu: str) -> list[str]:
    """An emulated ARM CPU that counts what it runs."""
    plugin = BUILD / "kernels-aarch64" / "count.so"
    source = Path(__file__).with_name("native") / "count_plugin.c"
    program = build_arm()
    run("gcc", "-O1", "-shared", "-fPIC", str(source), "-o", str(plugin))
    return ["qemu-aarch64", "-cpu", cpu, "-plugin", str(plugin), "-d", "plugin", str(program)]


def x86_command() -> list[str]:
    """Valgrind, which knows AVX2 but not AVX512."""
    return ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", str(build_native())]


def per_call(command: list[str], isa: str, bits: int, rows: int) -> int:
    """Instructions of one call: three calls less one, halved."""
    one, three = (count(run(*command, "repeat", isa, str(bits), str(rows), str(times))) for times in (1, 3))
    return (three - one) // 2


def count(output: str) -> int:
    """The number that either tool printed."""
    found = re.search(r"(?:instructions: |Collected : )(\d+)", output)
    assert found, f"no count in:\n{output[-500:]}"
    return int(found.group(1))


def measure(isa: str) -> dict[str, int]:
    """Every width and both heights of one path, as "4 bits, 16 rows"."""
    command = x86_command() if isa == "avx2" else arm_command(ARM[isa])
    return {
        f"{bits} bits, {rows} rows": per_call(command, isa, bits, rows) for bits in WIDTHS for rows in ROWS
    }


if __name__ == "__main__":
    RECORD.write_text(json.dumps({isa: measure(isa) for isa in ("avx2", *ARM)}, indent=1) + "\n")
