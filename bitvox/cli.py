"""The command line: `bitvox COMMAND`.

Exit codes: 0 done, 1 the request cannot be met (the line on stderr names the nearest that can), 2 wrong
usage or bad input, 130 interrupted, 143 terminated, 129 hung up (128 and the signal's number).
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from bitvox.commands import compiling, inspecting, judging, reproducing, running
from bitvox.commands.output import print_failure
from bitvox.disk import no_room
from bitvox.errors import BitvoxError

app = typer.Typer(
    name="bitvox",
    help=(
        "Fit a speech-recognition model to a voice and to a byte budget, and run what comes out.\n\n"
        "    bitvox compile facebook/wav2vec2-base-960h --audio ./my-voice --budget 45MB --out ./my-model\n\n"
        "    bitvox transcribe ./my-model recording.wav\n\n"
        "Sizes: 1 MB is 10^6 bytes, 1 MiB is 2^20. Results go to stdout, everything else to stderr."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for group in (compiling, running, judging, inspecting, reproducing):
    group.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from bitvox import __version__

        print(f"bitvox {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Options of `bitvox` itself."""


def main() -> None:
    """Entry point of the `bitvox` script: run a command and exit with its code; every failure is one line."""
    # A path need not be valid text, and a terminal need not know every letter: print what can be printed.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` has it
            signal.signal(number, _stop)
    code = run()
    try:
        sys.stdout.flush()
    except OSError as error:
        # What cannot be written now cannot be written when the interpreter flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        gone = error.errno == errno.EPIPE  # the reader, e.g. `head`, has what it wanted
        code = code or (1 if gone else _fail(f"stdout: {error.strerror}", 1))
    sys.exit(code)


class _StoppedError(BaseException):
    """A signal asks the process to end: not an Exception, so that nothing but clean-up stands in its way."""

    heard: int | None = None
    """Number of the signal that was; torch's C++ may have made another error of this one."""


_INTERRUPTED = 128 + signal.SIGINT


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one must not cut the clean-up short
    _StoppedError.heard = number
    raise _StoppedError


def run(arguments: list[str] | None = None) -> int:
    """Run one command line, by default the process's own; returns its exit code."""
    try:
        code = app(arguments, prog_name="bitvox", standalone_mode=False) or 0
    except BaseException as error:
        code = _explain(error) if _StoppedError.heard is None else _stopped(_StoppedError.heard)
    else:
        code = _stopped(signal.SIGINT) if code == _INTERRUPTED else code
    return code


def _explain(error: BaseException) -> int:
    """Say in one line what went wrong, where it is known; raises what is not."""
    if isinstance(error, BitvoxError):
        return _fail(str(error), error.exit_code)
    if isinstance(error, typer.TyperException):
        return _usage(error)
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return _stopped(signal.SIGINT)
    if isinstance(error, OSError):
        if fault := no_room(error):
            return _fail(f"{error.filename or 'output'}: {fault}; free some space", 1)
        if error.filename is not None:
            return _fail(f"{error.filename}: {error.strerror}", 2)
    raise error


def _stopped(number: int) -> int:
    said = "interrupted" if number == signal.SIGINT else "stopped"
    return _fail(f"{said}; nothing was left half-written", 128 + number)


def _usage(error: typer.TyperException) -> int:
    """Wrong usage; a bare `bitvox` has shown its help already and has nothing to add."""
    context = getattr(error, "ctx", None)
    path = context.command_path.removeprefix("bitvox").strip() if context else ""
    message = error.format_message()
    if not message:
        return 2
    command = f"bitvox {path}".strip()
    return _fail(f"{path + ': ' if path else ''}{message.rstrip('.')}; see `{command} --help`", 2)


def _fail(message: str, code: int) -> int:
    print_failure(message)
    return code
