"""stdout belongs to results: one JSON document under `--json`, else aligned text; all else goes to stderr."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from bitvox.printable import printable
from bitvox.progress import Progress, progress_on_stderr


@contextlib.contextmanager
def working() -> Iterator[Progress]:
    """Progress on stderr; what a library prints meanwhile goes there too, never between results."""
    with contextlib.redirect_stdout(sys.stderr), progress_on_stderr() as progress:
        yield progress


def print_json(document: Any) -> None:
    """The one document of a command under `--json`."""
    print(json.dumps(document, ensure_ascii=False, indent=2))


def print_failure(message: str) -> None:
    """One line on stderr for what could not be done."""
    print("bitvox: " + printable(" ".join(message.split())), file=sys.stderr, flush=True)


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows under headers in aligned columns, numbers to the right, never cut to a terminal's width."""
    cells = [[str(cell) for cell in row] for row in [headers, *rows]]
    widths = [max(len(row[index]) for row in cells) for index in range(len(headers))]
    right = [bool(rows) and all(_numeric(row[index]) for row in cells[1:]) for index in range(len(headers))]
    lines = [
        "  ".join(
            cell.rjust(width) if align else cell.ljust(width)
            for cell, width, align in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    ]
    return "\n".join(lines)


def _numeric(cell: str) -> bool:
    return cell in ("", "-") or cell.lstrip("+-")[:1].isdigit()
