"""Figures of experiments: SVG by matplotlib, the same bytes for the same numbers."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bitvox.benchmarks.experiments.results import Rate, write_text
from bitvox.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#f0e442")
_MARKERS = "os^Dv<>P"


@dataclass(frozen=True)
class Line:
    """One line of a plot: a value with its interval at each x; what is not defined is left out."""

    name: str
    x: tuple[float, ...]
    rates: tuple[Rate, ...]


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        lines: Drawn over `x_label`, with intervals.
        zero: Whether a line marks zero: of differences.
        ticks: Names of x = 0, 1, 2, ... where x has no unit: one below the other, with values to the right.
    """

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    zero: bool = False
    ticks: tuple[str, ...] = ()
    logarithmic: bool = False


def check_drawable() -> None:
    """InputError where figures cannot be drawn."""
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError("matplotlib: not installed, and figures need it; pip install 'bitvox[experiments]'")


def draw(panels: Sequence[Panel], path: Path, columns: int = 2) -> None:
    """Panels side by side, `columns` in a row, into an SVG file."""
    from matplotlib.figure import Figure

    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    heights = [max(map(_height, panels[columns * row : columns * (row + 1)])) for row in range(rows)]
    figure = Figure(figsize=(5.2 * columns, sum(heights)), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False, height_ratios=heights).flat)
    for axes, panel in zip(grid, panels, strict=False):
        _fill(axes, panel)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    _save(figure, path)


def _height(panel: Panel) -> float:
    """In inches."""
    return max(3.6 if not panel.ticks else 1.6, 0.9 + 0.2 * len(panel.ticks))


def _fill(axes: Axes, panel: Panel) -> None:
    for index, line in enumerate(panel.lines):
        _draw_line(axes, panel, index, line)
    if panel.zero:
        (axes.axvline if panel.ticks else axes.axhline)(0.0, color="#888888", linewidth=0.8)
    if panel.ticks:
        axes.set_yticks(range(len(panel.ticks)), panel.ticks, fontsize=8)
        axes.invert_yaxis()
    if panel.logarithmic:
        (axes.set_xscale if panel.ticks else axes.set_yscale)("log")
    axes.set_title(panel.title, fontsize=10)
    axes.set_xlabel(panel.y_label if panel.ticks else panel.x_label)
    axes.set_ylabel(panel.x_label if panel.ticks else panel.y_label)
    axes.grid(alpha=0.25)
    if len(panel.lines) > 1:
        axes.legend(fontsize=7)


def _draw_line(axes: Axes, panel: Panel, index: int, line: Line) -> None:
    count = len(panel.lines)
    # A little beside each other, so that intervals at one place can be told apart.
    nudge = 0.3 * (index - (count - 1) / 2) / count if panel.ticks else 0.0
    points = [
        (x + nudge, rate) for x, rate in zip(line.x, line.rates, strict=True) if rate.percent is not None
    ]
    if not points:
        return
    places = [x for x, _ in points]
    values = [rate.percent or 0.0 for _, rate in points]
    below = [value - (rate.low or 0.0) for value, (_, rate) in zip(values, points, strict=True)]
    above = [(rate.high or 0.0) - value for value, (_, rate) in zip(values, points, strict=True)]
    interval = ([max(0.0, one) for one in below], [max(0.0, one) for one in above])
    across, up = (values, places) if panel.ticks else (places, values)
    axes.errorbar(
        across,
        up,
        xerr=interval if panel.ticks else None,
        yerr=None if panel.ticks else interval,
        label=line.name,
        color=COLOURS[index % len(COLOURS)],
        marker=_MARKERS[index % len(_MARKERS)],
        linestyle="none" if panel.ticks else "-",
        markersize=4,
        linewidth=1.2,
        capsize=2,
    )


def _save(figure: Figure, path: Path) -> None:
    import matplotlib

    text = io.StringIO()
    # Identifiers follow from a salt, and no date is written: the file changes with its numbers alone.
    with matplotlib.rc_context({"svg.hashsalt": "bitvox", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    write_text(path, "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n")
