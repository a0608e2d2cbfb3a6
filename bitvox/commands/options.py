"""Options that several commands share: one name, one meaning, one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

BundleArgument = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="Folder that `bitvox compile --out` wrote.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
ThreadsOption = Annotated[int, typer.Option("--threads", help="Threads that the runtime may use.", min=1)]
