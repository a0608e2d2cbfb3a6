"""Where stderr is a file, progress is a few plain lines, and warnings are lines too."""

from __future__ import annotations

import pytest

from bitvox import progress
from bitvox.progress import PlainLines, logger, progress_on_stderr


def test_lines_are_few_and_tell_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    show = PlainLines()
    for done in range(101):
        show("measure", done, 100)
        clock[0] += 0.2
    show("pack", 0, 1)
    assert capsys.readouterr().err.splitlines() == [
        "measure: 0/100",
        "measure: 25/100, about 15 s left",
        "measure: 50/100, about 10 s left",
        "measure: 75/100, about 5 s left",
        "measure: done in 20.0 s",
        "pack: 0/1",
    ]


def test_warnings_are_lines_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_on_stderr() as show:
        show("read", 0, 2)
        logger.warning("skipped %s", "a.wav: empty [bold] file")
        show("read", 2, 2)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[1] == "bitvox: warning: skipped a.wav: empty [bold] file"
    assert logger.handlers == []


def test_bars_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with progress_on_stderr() as show:
        for stage in ("read", "pack", "read"):
            for done in range(3):
                show(stage, done, 2)
        logger.warning("odd [red] thing")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "bitvox: warning: odd [red] thing" in captured.err
    assert captured.err.count("2/2") >= 2
