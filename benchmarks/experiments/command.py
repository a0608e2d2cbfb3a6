"""What the commands of all experiments do alike: progress on stderr, one line a failure."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from bitvox.errors import BitvoxError, InputError
from bitvox.progress import Progress, progress_on_stderr


def results_file(parser: argparse.ArgumentParser, options: argparse.Namespace, default: Path) -> Path:
    """The file for a run with these options: `default`, which is committed, for the experiment as it stands.

    Raises InputError where another option is not at its default and `--out` names no other file: such a run
    would replace rows that took hours with those of a trial.
    """
    if options.out is not None:
        return Path(options.out)
    for name, value in vars(options).items():
        if value != parser.get_default(name):
            raise InputError(
                f"--{name}: a run with it would replace {default.name}, the whole experiment's results; "
                "name another file with --out"
            )
    return default


def run_on_speech(
    name: str,
    description: str | None,
    default: Path,
    work: Callable[[Path, argparse.Namespace, Progress], object],
) -> int:
    """The command line of an experiment on recordings: `--out`, `--model`, `--limit`; returns the exit code.

    `work` is called with the results file, the options and the progress.
    """
    parser = argparse.ArgumentParser(prog=name, description=description)
    parser.add_argument("--out", type=Path, help="results file")
    parser.add_argument("--model", default="reference-ctc", help="checkpoint, as `bitvox compile` takes it")
    parser.add_argument("--limit", type=int, help="most recordings of each test set, for a trial")
    options = parser.parse_args()
    return run(lambda progress: work(results_file(parser, options, default), options, progress))


def run(work: Callable[[Progress], object]) -> int:
    """Do the work of an experiment; returns the exit code."""
    try:
        with progress_on_stderr() as progress:
            work(progress)
    except BitvoxError as error:
        print(f"bitvox: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("bitvox: interrupted; finished cells are kept, the same command goes on", file=sys.stderr)
        return 130
    return 0
