"""`python -m bitvox.benchmarks.kernels`: measure everything here, add it to the page of all machines."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bitvox.benchmarks.kernels import report, suites


def main() -> int:
    """Run the suites, write this machine's JSON into `kernels/`, and `kernels.md` from all that lie there."""
    parser = argparse.ArgumentParser(prog="python -m bitvox.benchmarks.kernels", description=main.__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results"), help="folder of `kernels/` and the page"
    )
    parser.add_argument("--seconds", type=float, default=2.5, help="time for each shape, about")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page anew")
    arguments = parser.parse_args()
    if not arguments.page:
        results = suites.run_all(arguments.seconds, lambda line: print(line, file=sys.stderr, flush=True))
        report.write(results, arguments.out)
    report.write_page(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
