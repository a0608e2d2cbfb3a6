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
