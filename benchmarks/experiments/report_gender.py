"""The section on the gender that a model is calibrated on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bitvox.benchmarks.experiments.figures import draw
from bitvox.benchmarks.experiments.gender import GenderDocument, GenderRow
from bitvox.benchmarks.experiments.report_contrasts import (
    EXPLAINED,
    contrasts_table,
    coverage,
    panels,
    tellable,
    verdict,
)
from bitvox.benchmarks.experiments.results import read_document
from bitvox.benchmarks.experiments.tables import count, origin, table


def section(path: Path) -> str:
    """Rates of every set, then what they say against each other."""
    document = read_document(path, GenderDocument)
    covered = coverage(document.provenance, len(document.rows))
    split = document.experiment.removeprefix("gender_")
    found = tellable(document.summary)
    verdicts = [verdict(found, "The same gender", one) for one in ("other", "both", "none")]
    return "\n\n".join(
        [
            f"## Gender of the calibration clips ({split})",
            origin(document.provenance, document.rows),
            *([covered] if covered else []),
            "A set is calibrated on women (`f`), men (`m`), both or nobody, with the same seconds, drawn "
            "anew for each of the draws. `auto` has in all of them the widths found on generic training "
            "recordings: sets differ in the rounding, at equal bytes. `myqasr` allocates anew from each set "
            "(ascending, min-max, a scale per output channel). On nobody weights are rounded to nearest, or "
            "myQASR's order is drawn. Activations are 8-bit, ranged at each call.",
            _rates(document.rows),
            EXPLAINED,
            contrasts_table(found),
            *(one for one in verdicts if one),
        ]
    )


def figure(path: Path, out: Path) -> None:
    """The divergence of the same gender against the others, over bits."""
    draw(panels(tellable(read_document(path, GenderDocument).summary)), out)


def _rates(rows: Sequence[GenderRow]) -> str:
    """WER and divergence of each set, over all judged speakers: the mean of its draws and their range."""
    groups: dict[tuple[object, ...], list[GenderRow]] = {}
    for row in rows:
        groups.setdefault((row.corpus, row.method, row.bits, row.source), []).append(row)
    lines = []
    for (corpus, method, bits, source), some in groups.items():
        rates = [row.words.rate.percent or 0.0 for row in some]
        lines.append(
            (
                corpus,
                method,
                "" if bits is None else f"{bits:g} bits",
                source or "",
                len(some),
                count(some[0].bytes) if some[0].bytes else "",
                f"{sum(rates) / len(rates):.1f} ({min(rates):.1f} to {max(rates):.1f})",
                f"{sum(row.divergence for row in some) / len(some):.4f}",
            )
        )
    headers = (
        "data",
        "method",
        "budget of",
        "calibrated on",
        "draws",
        "bytes",
        "WER % (draws)",
        "divergence",
    )
    return table(headers, lines)
