"""What the commands beside `bitvox` do alike: progress on stderr, one line a failure."""

from __future__ import annotations

import sys
from collections.abc import Callable

from bitvox.errors import BitvoxError
from bitvox.progress import Progress, progress_on_stderr


def run(work: Callable[[Progress], object]) -> int:
    """Do the work of a command; returns the exit code."""
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
