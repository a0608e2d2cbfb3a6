"""The section on methods at equal true bytes: every allocation with every rounding."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from bitvox.benchmarks.experiments.figures import Line, Panel, draw
from bitvox.benchmarks.experiments.head_to_head import Comparison, HeadDocument
from bitvox.benchmarks.experiments.judge import JudgedRow
from bitvox.benchmarks.experiments.results import read_document
from bitvox.benchmarks.experiments.tables import count, excludes_zero, origin, percent, points, table


def section(path: Path) -> str:
    """One table of rows, one of comparisons."""
    document = read_document(path, HeadDocument)
    rows = sorted(document.rows, key=lambda row: -(row.bits or 99))
    split = document.experiment.removeprefix("head_to_head_")
    parts = [
        f"## Allocation and rounding at equal bytes ({split})",
        origin(document.provenance, document.rows),
        "A budget is the size of the bundle with that many bits a weight. Activations are 8-bit, ranged at "
        "each call, in every row; all have a weight scale per output channel. `auto` allocates by the "
        "measured divergence of the model's own output (`quick`: by its growth with noise; `max`: measured "
        "again around the widths found). What is judged is the torch model that bundles are compared with "
        "site by site; bytes are those of the files.",
        _rows(rows),
    ]
    if document.summary:
        parts += [
            "`auto` at effort normal beside the best myQASR row of that budget, which was chosen by its "
            "errors on these very clips:",
            _comparisons(document.summary),
            _sentence(document.summary),
        ]
    return "\n\n".join(parts)


def figure(path: Path, out: Path) -> None:
    """WER over bits, a line a method."""
    document = read_document(path, HeadDocument)
    lines: dict[str, list[JudgedRow]] = defaultdict(list)
    for row in document.rows:
        if row.bits is not None and not row.unreachable:
            lines[_name(row)].append(row)
    drawn = [
        Line(name, tuple(row.bits or 0.0 for row in rows), tuple(row.difference for row in rows))
        for name, rows in lines.items()
    ]
    draw(
        [Panel("methods at equal bytes", "bits a weight", "WER − full precision", tuple(drawn), zero=True)],
        out,
    )


def _name(row: JudgedRow) -> str:
    words = (row.method, row.order, row.effort, row.rounding, row.calibration)
    return ", ".join(word for word in words if word not in (None, "normal", "min-max"))


def _rows(rows: Sequence[JudgedRow]) -> str:
    headers = (
        "budget of",
        "method",
        "order",
        "calibration",
        "rounding",
        "bytes",
        "bits",
        "WER %",
        "WER − full precision",
        "divergence",
    )
    return table(headers, [_line(row) for row in rows])


def _line(row: JudgedRow) -> tuple[object, ...]:
    method = row.method if row.effort in (None, "normal") else f"{row.method} ({row.effort})"
    anchor = "" if row.bits is None else f"{row.bits:g} bits"
    options = (anchor, method, row.order or "", row.calibration or "", row.rounding or "")
    if row.unreachable:
        return (*options, f"none: {row.unreachable}", *[""] * 4)
    if row.bits is None:
        return (*options, "", "", percent(row.words.rate), "", "")
    rate, difference = percent(row.words.rate), points(row.difference)
    return (
        *options,
        count(row.bytes),
        f"{row.average_bits:.2f}",
        rate,
        difference,
        f"{row.divergence:.4f}",
    )


def _comparisons(found: Sequence[Comparison]) -> str:
    headers = ("budget of", "best myQASR", "WER auto − myQASR", "auto's increase / myQASR's")
    lines = [
        (
            f"{one.bits:g} bits",
            one.best,
            points(one.difference),
            "–" if one.share is None else f"{one.share:.2f}",
        )
        for one in sorted(found, key=lambda one: -one.bits)
    ]
    return table(headers, lines)


def _sentence(found: Sequence[Comparison]) -> str:
    better = [one for one in found if excludes_zero(one.difference) and (one.difference.percent or 0) < 0]
    worse = [one for one in found if excludes_zero(one.difference) and (one.difference.percent or 0) > 0]
    return (
        f"Of {len(found)} budgets `auto` makes fewer errors by more than chance at {len(better)} and more "
        f"at {len(worse)}, without correction for comparing so many."
    )
