"""Help, and one line for whatever is typed wrong."""

from __future__ import annotations

import pytest
from command_line import COMMANDS, COMPILE, Captured, imports_none_of, one_line

from bitvox.cli import run


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: Captured) -> None:
    assert run([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"bitvox {command}" in text or command in text
    assert "--json" in text


def test_help_and_version(capsys: Captured) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == "bitvox 0.1.0\n"


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (["compile"], "compile: Missing argument 'MODEL'"),
        (["frobnicate"], "No such command 'frobnicate'"),
        (["compile", "m", "--bugdet", "3MB"], "No such option"),
        ([*COMPILE, "--method", "magic"], "'magic' is not one of"),
        (COMPILE[:-2], "budget: none given; write --budget 45MB"),
        ([*COMPILE[:-1], "45 potatoes"], "budget '45 potatoes': write a size"),
        ([*COMPILE, "--clips", "0"], "--clips"),
        (["plan", *COMPILE[1:4], "--budget", "1MB", "-o", "/nowhere/p.json"], "name a file in a folder"),
        (["transcribe", "gone", "gone.wav"], "gone.wav: no such file or folder"),
        (["verify", "gone"], "gone: no such folder"),
        (["eval", "gone", "--data", "x"], "gone: no such bundle"),
        (["bench", "gone"], "gone: no such bundle"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(command: list[str], complaint: str, capsys: Captured) -> None:
    assert complaint in one_line(capsys, command, 2)


def test_help_imports_nothing_heavy() -> None:
    done = imports_none_of("torch,transformers,onnxruntime,numpy,soundfile,pydantic,jiwer", "--help")
    assert done.returncode == 0, done.stderr
