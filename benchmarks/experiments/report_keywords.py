"""The section on keywords of each speaker: does it matter who a model is calibrated on?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bitvox.benchmarks.experiments.figures import Line, Panel, draw
from bitvox.benchmarks.experiments.keyword_rows import KeywordsDocument, PooledRow
from bitvox.benchmarks.experiments.results import Rate, read_document
from bitvox.benchmarks.experiments.tables import count, excludes_zero, origin, percent, points, table

_SOURCES = ("own", "other", "mix")


def section(path: Path) -> str:
    """A table of accuracies, one of comparisons, and what they say."""
    document = read_document(path, KeywordsDocument)
    found = sorted(
        document.summary, key=lambda row: (row.clips, row.method, row.order or "", -(row.bits or 99))
    )
    full = next(row for row in found if row.bits is None)
    return "\n\n".join(
        [
            "## Keywords of each speaker",
            origin(document.provenance, document.rows),
            f"Arabic keywords of {full.speakers} speakers, each judged by the model that was never taught "
            "that speaker, on one clip of each keyword a draw; no clip that calibrates is judged on. `other` "
            "is one other stranger to the model, another one in each draw; `mix` takes from half of the "
            "other strangers in turn. Widths of `auto` are those found on speakers who were taught, so that "
            "sources differ in the rounding, and with `none` it is to nearest; myQASR's widths are found on "
            "the source, and with `none` in an order drawn by seed. A budget is the size of the bundle with "
            "that many bits a weight; activations are 8-bit, ranged at each call.",
            f"Full precision: {percent(full.accuracy)} % right of {count(full.judged)} clips in "
            f"{full.draws} draw{'s' if full.draws > 1 else ''} (interval of Clopper and Pearson, as in the "
            f"table; resampling speakers it is {percent(full.clustered)}).",
            _accuracies(found),
            "Calibration on the speaker minus that on another source, in points of accuracy on the same "
            "clips; intervals resample speakers, p is of the exact sign-flip test over speakers. The last "
            "columns compare the divergence from full precision's own output, which tells smaller changes "
            "apart (below zero: the speaker's own clips are better):",
            _contrasts(found),
            _sentence(found),
            "`auto` minus myQASR at the same bytes, both calibrated on the speaker, in points of accuracy:",
            _methods(found),
        ]
    )


def _accuracies(found: Sequence[PooledRow]) -> str:
    headers = ("clips", "method", "budget of", "bytes", "bits", "judged", *_SOURCES, "none")
    lines = []
    for row in found:
        if row.source == "own":
            same = [_same(found, row, source) for source in ("other", "mix", "none")]
            accuracies = [percent(one.accuracy) if one else "" for one in (row, *same)]
            lines.append(
                (
                    row.clips,
                    _method(row),
                    f"{row.bits:g} bits",
                    count(row.bytes),
                    f"{row.average_bits:.2f}",
                    count(row.judged),
                    *accuracies,
                )
            )
    return table(headers, lines)


def _same(found: Sequence[PooledRow], row: PooledRow, source: str) -> PooledRow | None:
    """The row of another source that goes with one of the speaker's own."""
    for one in found:
        alike = one.method == row.method if source == "none" else one.condition == row.condition
        if one.source == source and one.bits == row.bits and alike:
            return one
    return None


def _contrasts(found: Sequence[PooledRow]) -> str:
    headers = ["clips", "method", "budget of"]
    for source in ("other", "mix", "none"):
        headers += [f"own − {source}", "p"]
    headers += ["divergence to other's %", "to the mix's %"]
    lines = []
    for row in found:
        if row.source != "own":
            continue
        line: list[object] = [row.clips, _method(row), f"{row.bits:g} bits"]
        for source in ("other", "mix", "none"):
            one = row.contrasts[source]
            line += [points(one.difference), f"{one.p:.3f}"]
        lines.append([*line, *(points(row.contrasts[source].divergence) for source in ("other", "mix"))])
    return table(headers, lines)


def _methods(found: Sequence[PooledRow]) -> str:
    headers = ("clips", "budget of", "minus ascending", "p", "minus descending", "p")
    lines = []
    for row in found:
        if row.source == "own" and row.method == "auto":
            both = [row.contrasts[f"myqasr {order}"] for order in ("ascending", "descending")]
            pairs = [text for one in both for text in (points(one.difference), f"{one.p:.3f}")]
            lines.append((row.clips, f"{row.bits:g} bits", *pairs))
    return table(headers, lines)


def _sentence(found: Sequence[PooledRow]) -> str:
    own = [row for row in found if row.source == "own"]
    texts = []
    for source in ("other", "mix"):
        differences = [row.contrasts[source].difference for row in own]
        divergences = [row.contrasts[source].divergence for row in own]
        texts.append(
            f"Against {'another speaker' if source == 'other' else 'the mix'}, of {len(own)} rows the "
            f"speaker's own clips are better by more than chance in {_beyond(differences, 1)} and worse in "
            f"{_beyond(differences, -1)} by accuracy, and in {_beyond(divergences, -1)} and "
            f"{_beyond(divergences, 1)} by divergence."
        )
    widest = max((row.contrasts["other"].difference for row in own), key=_width)
    return (
        " ".join(texts)
        + " Nothing is corrected for comparing so many. A true difference of less than about "
        + f"{_width(widest) / 2:.1f} points could go unseen where intervals are widest."
    )


def _beyond(rates: Sequence[Rate], sign: int) -> int:
    return sum(excludes_zero(rate) and sign * (rate.percent or 0.0) > 0 for rate in rates)


def _width(rate: Rate) -> float:
    return (rate.high or 0.0) - (rate.low or 0.0)


def _method(row: PooledRow) -> str:
    return row.method if row.order is None else f"{row.method}, {row.order}"


def figure(path: Path, out: Path) -> None:
    """Accuracy by source over bits, a panel a method; and what the speaker's own clips gain."""
    document = read_document(path, KeywordsDocument)
    rows = sorted((row for row in document.summary if row.bits is not None), key=lambda row: row.bits or 0.0)
    panels = []
    for clips, method in dict.fromkeys((row.clips, _method(row)) for row in rows if row.source == "own"):
        mine = [row for row in rows if (row.clips, _method(row)) == (clips, method)]
        free = [row for row in rows if row.source == "none"]
        lines = [
            Line(source, tuple(row.bits or 0.0 for row in group), tuple(row.clustered for row in group))
            for source in (*_SOURCES, "none")
            if (group := [row for row in (*mine, *free) if row.source == source])
        ]
        panels.append(Panel(f"{method}, {clips} clips", "bits a weight", "right %", tuple(lines)))
    draw(panels, out, columns=3)
