"""`reproduce`: the experiments behind the page of results, each one command that goes on where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bitvox.commands.options import JsonOption
from bitvox.commands.output import print_json, table, working


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("reproduce")(reproduce_command)


def reproduce_command(
    experiment: Annotated[
        str | None, typer.Argument(metavar="EXPERIMENT", help="Its name; without one, all are listed.")
    ] = None,
    split: Annotated[
        Literal["dev", "test"] | None,
        typer.Option(help="Speakers to judge on. Choose by dev; touch test once, runs on it are logged."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Results file (JSON); its table and figure are written beside it. In a checkout, usually "
            "that of the experiment in benchmarks/results.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Checkpoint, where it is not reference-ctc.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Most recordings to judge on, for a trial with its own --out.", min=1)
    ] = None,
    json: JsonOption = False,
) -> None:
    """Run an experiment again: results as JSON, its table, its figure. Finished cells are kept.

    Recordings of people are read from BITVOX_SPEECH, else from ../shared/speech beside the checkout.

        bitvox reproduce head-to-head --split dev
    """
    if experiment is None:
        _list(json)
        return
    with working() as progress:
        from bitvox.benchmarks.experiments.reproduce import reproduce

        done = reproduce(experiment, progress, split, out, model, limit)
    if json:
        files = {"results": done.results, "table": done.table, "figure": done.figure}
        names = {name: path and str(path) for name, path in files.items()}
        print_json({"experiment": experiment, **names, "measured": done.measured})
    else:
        print(done.section)


def _list(json: bool) -> None:
    with working():
        from bitvox.benchmarks.experiments.registry import EXPERIMENTS
    if json:
        print_json([{"name": one.name, "about": one.about, "splits": one.splits} for one in EXPERIMENTS])
    else:
        print(table(("experiment", "answers"), [(one.name, one.about) for one in EXPERIMENTS]))
