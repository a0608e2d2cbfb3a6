"""One run of an experiment: its results file, and beside it the table and the figure made of that."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bitvox.benchmarks.experiments.experiment import MODEL, Experiment, Options, Split
from bitvox.benchmarks.experiments.figures import check_drawable
from bitvox.benchmarks.experiments.provenance import commit
from bitvox.benchmarks.experiments.registry import find
from bitvox.benchmarks.experiments.results import REPOSITORY, write_text
from bitvox.errors import InputError
from bitvox.progress import Progress

RESULTS = REPOSITORY / "benchmarks" / "results"

# Beside results files: every time that cells were measured on test speakers.
_TEST_LOG = "test_log.csv"


@dataclass(frozen=True)
class Reproduced:
    """What a run wrote.

    Attributes:
        results: JSON; `table`: Markdown; `figure`: SVG, None where the experiment has none.
        measured: Cells of this run; the others were finished before.
        section: What is in `table`.
    """

    results: Path
    table: Path
    figure: Path | None
    measured: int
    section: str


def reproduce(
    name: str,
    progress: Progress,
    split: Split | None = None,
    out: Path | None = None,
    model: str | None = None,
    limit: int | None = None,
) -> Reproduced:
    """Measure what the results file lacks, then write the table and the figure.

    Raises InputError for an experiment, or an option of it, that there is not.
    """
    experiment = find(name)
    options = _options(experiment, split, out, model, limit)
    if experiment.figure is not None:
        check_drawable()
    before = _keys(options.out)
    try:
        experiment.measure(options, progress)
    finally:
        measured = len(_keys(options.out) - before)
        if measured and experiment.splits and options.split == "test":
            _log_test(options.out, experiment, measured)
    return write_report(experiment, options.out, measured)


def write_report(experiment: Experiment, results: Path, measured: int = 0) -> Reproduced:
    """The table and the figure of a results file, beside it."""
    section, table, figure = experiment.section(results), results.with_suffix(".md"), None
    text = section
    if experiment.figure is not None:
        figure = results.with_suffix(".svg")
        experiment.figure(results, figure)
        text += f"\n\n![{experiment.name}]({figure.name})"
    write_text(table, text + "\n")
    return Reproduced(results, table, figure, measured, section)


def _options(
    experiment: Experiment, split: Split | None, out: Path | None, model: str | None, limit: int | None
) -> Options:
    words: list[str] = []
    for option, value in (("model", model), ("limit", limit)):
        if value is not None and option not in experiment.takes:
            raise InputError(f"--{option}: {experiment.name} has no such choice; leave it out")
        words += [] if value is None else [f"--{option}", str(value)]
    if split is not None and split not in experiment.splits:
        known = " or ".join(experiment.splits)
        raise InputError(
            f"--split {split}: {experiment.name} "
            + (f"is judged on {known}" if known else "is judged on no recordings; leave it out")
        )
    usual: Split = experiment.splits[0] if experiment.splits else "test"
    chosen = split or usual
    if words and out is None:
        raise InputError(
            f"{words[0]}: a run with it would replace {experiment.stem(chosen)}.json, the whole experiment's "
            "results; name another file with --out"
        )
    if chosen != usual:
        words = ["--split", chosen, *words]
    return Options(out or _committed(experiment, chosen), chosen, model or MODEL, limit, tuple(words))


def _committed(experiment: Experiment, split: Split) -> Path:
    if not (REPOSITORY / "pyproject.toml").exists():
        raise InputError("out: none given, and no checkout to write to; name a results file with --out")
    return RESULTS / f"{experiment.stem(split)}.json"


def _keys(path: Path) -> set[str]:
    """Keys of the cells of a results file; none where it cannot be read."""
    try:
        return {row["key"] for row in json.loads(path.read_text(encoding="utf-8"))["rows"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _log_test(results: Path, experiment: Experiment, measured: int) -> None:
    log = results.with_name(_TEST_LOG)
    new = not log.exists()
    with log.open("a", newline="", encoding="utf-8") as file:
        lines = csv.writer(file, lineterminator="\n")
        if new:
            lines.writerow(("utc", "experiment", "file", "commit", "cells"))
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ")
        lines.writerow((now, experiment.name, results.name, commit(), measured))
