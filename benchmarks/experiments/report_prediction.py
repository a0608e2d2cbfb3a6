"""The section on what scores say of what quantising a layer costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bitvox.benchmarks.experiments.figures import Line, Panel, draw
from bitvox.benchmarks.experiments.prediction import Correlation, PredictionDocument
from bitvox.benchmarks.experiments.results import Rate, read_document
from bitvox.benchmarks.experiments.tables import origin, table


def section(path: Path) -> str:
    """One table, a column a quantiser."""
    document = read_document(path, PredictionDocument)
    return "\n\n".join(
        (
            f"## Does a score say what quantising a layer costs? ({document.provenance.model})",
            origin(document.provenance, document.rows),
            "Spearman's rank correlation, over the share groups of the model, of what a score or cost says "
            "from the calibration clips with the divergence of the model's output on recordings of other "
            "speakers when that group alone is quantised; the interval is a bootstrap over groups. 1 would "
            "order them perfectly, 0 is chance. `kl` is the divergence with one layer at 4 bits, rounded to "
            "nearest; costs are those that `auto` can use, at that width.",
            _table(document.summary),
            _sentence(document.summary),
        )
    )


def figure(path: Path, out: Path) -> None:
    """Correlations, a panel a quantiser."""
    panels = []
    for quantiser, found in _by_quantiser(read_document(path, PredictionDocument).summary).items():
        rates = tuple(Rate(percent=one.correlation, low=one.low, high=one.high) for one in found)
        line = Line("", tuple(map(float, range(len(found)))), rates)
        ticks = tuple(one.prediction.replace("cost ", "c. ").replace("number of ", "") for one in found)
        panels.append(Panel(quantiser, "", "rank correlation", (line,), zero=True, ticks=ticks))
    draw(panels, out, columns=1)


def _by_quantiser(found: Sequence[Correlation]) -> dict[str, list[Correlation]]:
    groups: dict[str, list[Correlation]] = {}
    for one in found:
        groups.setdefault(one.quantiser, []).append(one)
    return groups


def _table(found: Sequence[Correlation]) -> str:
    groups = _by_quantiser(found)
    names = list(dict.fromkeys(one.prediction for one in found))
    lines = []
    for name in names:
        cells = []
        for group in groups.values():
            one = next((one for one in group if one.prediction == name), None)
            cells.append("" if one is None else f"{one.correlation:+.2f} [{one.low:+.2f}, {one.high:+.2f}]")
        lines.append((name, *cells))
    return table(("", *(f"{name} ({group[0].groups} groups)" for name, group in groups.items())), lines)


def _sentence(found: Sequence[Correlation]) -> str:
    told = []
    for quantiser, group in _by_quantiser(found).items():
        best = max(group, key=lambda one: one.correlation)
        median = next(one for one in group if one.prediction == "median")
        verdict = (
            "foretells" if median.low > 0 else "misleads about" if median.high < 0 else "says nothing of"
        )
        told.append(
            f"At {quantiser}, the median {verdict} the divergence ({median.correlation:+.2f}); "
            f"best is {best.prediction} ({best.correlation:+.2f})."
        )
    return " ".join(told)


def _verdict(found: Correlation) -> str:
    if found.low > 0:
        return "foretells"
    return "misleads about" if found.high < 0 else "says nothing sure of"
