"""Options that several commands share: one name, one meaning, one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

BundleArgument = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="Folder that `bitvox compile --out` wrote.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
LanguageOption = Annotated[
    str | None,
    typer.Option(help="Spoken language, by code or English name; where left out, it is detected. Whisper."),
]
TaskOption = Annotated[str, typer.Option(help="transcribe, or translate into English. Whisper.")]
BeamsOption = Annotated[
    int,
    typer.Option(help="Hypotheses that the search keeps; 1 is fastest. Whisper and Moonshine.", min=1),
]
ThreadsOption = Annotated[int, typer.Option("--threads", help="Threads that the runtime may use.", min=1)]
