"""The section on what each effort takes."""

from __future__ import annotations

from pathlib import Path

from bitvox.benchmarks.experiments.planning_time import GOALS, MEMORY_GOAL, PlanningDocument, PlanningRow
from bitvox.benchmarks.experiments.results import read_document
from bitvox.benchmarks.experiments.tables import count, origin, table


def section(path: Path) -> str:
    """A line an effort, and its goal."""
    document = read_document(path, PlanningDocument)
    headers = ("effort", "told before", "seconds", "of computing", "peak GB", "bytes", "load", "goal")
    return "\n\n".join(
        [
            "## What an effort takes at full size",
            origin(document.provenance, document.rows),
            "From the start of the process to a bundle that was run and proved, nothing kept from before. "
            "There are 32 recordings of 10 seconds to calibrate with, of which quick takes a minute and a "
            "half. Where the load is above the cores, others were computing too: half of the seconds of "
            "computing is what two cores of their own would take at least.",
            table(headers, [_line(row) for row in document.rows]),
        ]
    )


def _line(row: PlanningRow) -> tuple[object, ...]:
    peak = "–" if row.peak_memory is None else f"{row.peak_memory / 1e9:.1f}"
    goal = GOALS.get(row.effort)
    fits = row.peak_memory is None or row.peak_memory <= MEMORY_GOAL
    said = "–" if goal is None else f"{goal:.0f} s, {MEMORY_GOAL / 1e9:.0f} GB: {_met(row, goal, fits)}"
    told = row.told.split(": ", 1)[-1]
    took = (f"{row.seconds:.0f}", f"{row.cpu_seconds:.0f}", peak, count(row.bytes), row.load_average)
    return (row.effort, told, *took, said)


def _met(row: PlanningRow, goal: float, fits: bool) -> str:
    return "met" if row.seconds <= goal and fits else "not met"
