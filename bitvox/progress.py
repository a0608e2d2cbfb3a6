"""How the rooms tell that work goes on, and how a terminal or a log shows it on stderr."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from bitvox.printable import printable

# Seconds between two lines of one stage where stderr is no terminal.
_LINE_INTERVAL = 5.0

# Warnings for the user, one line each, e.g. of a skipped clip, and what is told before long work; the command
# line prints them on stderr.
logger = logging.getLogger("bitvox")
logger.setLevel(logging.INFO)


class Progress(Protocol):
    """What every long-running function takes."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Step `done` of `total` of that stage is over; 0 opens the stage, `done == total` closes it."""
        ...


def no_progress(stage: str, done: int, total: int) -> None:
    """The progress of a caller who does not want to know."""


@contextmanager
def progress_on_stderr() -> Iterator[Progress]:
    """Bars with the time left on a terminal, else plain lines; warnings of `logger` appear between them."""
    if sys.stderr.isatty():
        with _bars() as progress:
            yield progress
    else:
        with warnings_on_stderr():
            yield PlainLines()


@contextmanager
def warnings_on_stderr() -> Iterator[None]:
    """Warnings of `logger` as plain lines, without any progress."""
    with _warnings_to(lambda line: print(line, file=sys.stderr, flush=True)):
        yield


class PlainLines:
    """A line when a stage opens, every few seconds with an estimate of the time left, and when it closes."""

    def __init__(self) -> None:
        self._stage: str | None = None
        self._started = self._printed = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Print a line where one is due."""
        now = time.monotonic()
        opened = stage != self._stage
        if opened:
            self._stage, self._started = stage, now
        if not (opened or done >= total or now - self._printed >= _LINE_INTERVAL):
            return
        self._printed = now
        print(f"{stage}: {self._say(done, total, now - self._started)}", file=sys.stderr, flush=True)

    @staticmethod
    def _say(done: int, total: int, elapsed: float) -> str:
        if done >= total:
            return f"done in {elapsed:.1f} s"
        left = f", about {elapsed / done * (total - done):.0f} s left" if done and elapsed > 1 else ""
        return f"{done}/{total}{left}"


@contextmanager
def _bars() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}

    def print_line(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    with Bars(*columns, console=console) as bars, _warnings_to(print_line):

        def progress(stage: str, done: int, total: int) -> None:
            if stage not in tasks or bars.tasks[tasks[stage]].finished:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield progress


@contextmanager
def _warnings_to(write: _Writer) -> Iterator[None]:
    handler = _Lines(write)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Writer(Protocol):
    def __call__(self, line: str) -> None: ...


class _Lines(logging.Handler):
    def __init__(self, write: _Writer) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        kind = "warning: " if record.levelno >= logging.WARNING else ""
        self._write(f"bitvox: {kind}{printable(record.getMessage())}")
