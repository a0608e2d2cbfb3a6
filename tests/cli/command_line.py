"""How tests of the command line call it, and the one line or document that it answers with."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from bitvox.cli import run

Captured = pytest.CaptureFixture[str]
COMPILE = ["compile", "m", "--audio", "a", "--out", "o", "--budget", "1.5MiB"]
COMMANDS = ("reproduce", "compile", "plan", "sweep", "transcribe", "verify", "eval", "bench", "inspect")


def one_line(captured: Captured, command: list[str], code: int) -> str:
    """Run a command that fails and return its last line on stderr; stdout must be empty."""
    assert run(command) == code
    out, err = captured.readouterr()
    assert out == ""
    line = err.splitlines()[-1]
    assert line.startswith("bitvox: ")
    assert "Traceback" not in err
    return line


def document(captured: Captured, command: list[str], code: int = 0) -> Any:
    """Run a command with --json and return the one document on its stdout."""
    assert run([*command, "--json"]) == code
    return json.loads(captured.readouterr().out)


LIGHT = """
import sys
from bitvox.cli import run
code = run(sys.argv[2:])
heavy = [name for name in sys.argv[1].split(",") if name in sys.modules]
sys.exit(f"imported {heavy}" if heavy else code)
"""


def imports_none_of(heavy: str, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", LIGHT, heavy, *command], capture_output=True, text=True, check=False
    )


def script(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from bitvox.cli import main; main()", *arguments]
