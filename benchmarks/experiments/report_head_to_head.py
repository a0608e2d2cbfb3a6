"""The section on methods at equal true bytes: every allocation with every rounding."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

from bitvox.benchmarks.experiments.figures import Line, Panel, draw
from bitvox.benchmarks.experiments.head_to_head import HALVED, OFFSETS, Comparison, HeadDocument, HeadRow
from bitvox.benchmarks.experiments.results import read_document
from bitvox.benchmarks.experiments.tables import count, excludes_zero, origin, percent, points, table

# The goals: averages of bits, and the share of bytes.
_COLLAPSE, _WHOLE, _HALVED, _BYTES = 5.0, 4.0, HALVED, 0.75

# End of an experiment's name -> what its title and its explanation say beside those of the first.
_STUDIES = {
    "_minutes": (", ten minutes of audio", ""),
    "_offsets": (
        f", ten minutes of audio, every recording at {OFFSETS} offsets",
        f" Every recording is judged {OFFSETS} times, each time 1/{OFFSETS} of a frame later, full precision "
        "too: which of two close letters is written changes with where frames begin, and its mean tells "
        "smaller differences. Speakers are resampled as before, with all their recordings.",
    ),
    "": ("", ""),
}


def section(path: Path) -> str:
    """One table of rows, one of comparisons."""
    document = read_document(path, HeadDocument)
    rows = sorted(document.rows, key=lambda row: -(row.bits or 99))
    study, _, split = document.experiment.rpartition("_")
    more, how = next(found for end, found in _STUDIES.items() if study.endswith(end))
    parts = [
        f"## Allocation and rounding at equal bytes{more} ({split})",
        origin(document.provenance, document.rows),
        "A budget is the size of the bundle with that many bits a weight. Activations are 8-bit, ranged at "
        "each call, and weights have a scale per output channel; `paper` is myQASR's own quantiser, one "
        "scale a layer and calibrated ranges. `auto` allocates by the measured divergence of the model's own "
        "output (`quick`: by its growth with noise; `max`: measured again around the widths found). What is "
        "judged is the torch model that bundles are compared with site by site; bytes are those of the "
        "files. Other tools stand at the bytes that they take, ONNX Runtime's in its own session; rows that "
        "end in `-style` follow a published formula, on every weight that bitvox quantises and with "
        "activations in float. In square brackets are intervals over speakers, in round ones the lowest and "
        f"the highest of several draws of calibration clips, beside their mean.{how}",
        _rows(rows),
    ]
    if document.summary:
        parts += [
            "`auto` at effort normal beside the best myQASR on the same quantiser, whose order and "
            "calibration were chosen by their errors on these very clips. Increases are over full precision, "
            "means over the calibration draws; intervals are over speakers and draws:",
            comparisons(document.summary),
            "\n".join(f"- {line}" for line in _goals(document)),
        ]
    return "\n\n".join(parts)


def figure(path: Path, out: Path) -> None:
    """WER over bits, a line a method."""
    document = read_document(path, HeadDocument)
    lines: dict[str, list[HeadRow]] = defaultdict(list)
    for row in sorted(document.rows, key=lambda row: row.bits or 0.0):
        if row.bits is not None and not row.unreachable and not row.draw:
            lines[_name(row)].append(row)
    drawn = [
        Line(name, tuple(row.bits or 0.0 for row in rows), tuple(row.difference for row in rows))
        for name, rows in lines.items()
    ]
    draw(
        [Panel("methods at equal bytes", "bits a weight", "WER − full precision", tuple(drawn), zero=True)],
        out,
    )


def _name(row: HeadRow) -> str:
    words = (row.method, row.order, row.effort, row.rounding, row.calibration, row.tier)
    return ", ".join(word for word in words if word not in (None, "normal", "min-max", "default"))


def _rows(rows: Sequence[HeadRow]) -> str:
    headers = (
        "budget of",
        "method",
        "tier",
        "order",
        "calibration",
        "rounding",
        "draws",
        "bytes",
        "bits",
        "WER %",
        "WER − full precision",
        "divergence",
    )
    drawn: dict[tuple[object, ...], list[HeadRow]] = defaultdict(list)
    for row in rows:
        drawn[_options(row)].append(row)
    return table(headers, [(*options, *_measured(found)) for options, found in drawn.items()])


def _options(row: HeadRow) -> tuple[object, ...]:
    method = row.method if row.effort in (None, "normal") else f"{row.method} ({row.effort})"
    anchor = "" if row.bits is None else f"{row.bits:g} bits"
    tier = "" if row.tier in (None, "default") else row.tier
    return (anchor, method, tier, row.order or "", row.calibration or "", row.rounding or "")


def _measured(drawn: Sequence[HeadRow]) -> tuple[object, ...]:
    """Of one method at one budget: its only row as it is, of several draws what they have in common."""
    first = drawn[0]
    if first.unreachable:
        return (len(drawn), f"none: {first.unreachable}", *[""] * 4)
    if first.bits is None:
        return ("", "", "", percent(first.words.rate), "", "")
    bits = f"{fmean(row.average_bits for row in drawn):.2f}" if first.budget else ""
    divergence = f"{fmean(row.divergence for row in drawn):.4f}"
    size = count(round(fmean(row.bytes for row in drawn)))
    if len(drawn) == 1:
        return (1, size, bits, percent(first.words.rate), points(first.difference), divergence)
    rates, differences = (
        [rate.percent or 0.0 for rate in found]
        for found in ([row.words.rate for row in drawn], [row.difference for row in drawn])
    )
    spread = f"{fmean(rates):.1f} ({min(rates):.1f} to {max(rates):.1f})"
    change = f"{fmean(differences):+.1f} ({min(differences):+.1f} to {max(differences):+.1f})"
    return (len(drawn), size, bits, spread, change, divergence)


def comparisons(found: Sequence[Comparison]) -> str:
    """A row a budget: the default method beside the best myQASR."""
    headers = (
        "budget of",
        "best myQASR",
        "draws",
        "its increase",
        "auto's increase",
        "auto − myQASR",
        "auto's increase − half of myQASR's",
        "bytes for no more errors / myQASR's",
    )
    lines = [
        (
            f"{one.bits:g} bits",
            one.best,
            one.draws,
            points(one.theirs),
            points(one.increase),
            points(one.difference),
            points(one.half),
            "–" if one.bytes_share is None else f"{one.bytes_share:.2f}",
        )
        for one in sorted(found, key=lambda one: -one.bits)
    ]
    return table(headers, lines)


def _goals(document: HeadDocument) -> Iterator[str]:
    """What was set out for the method, and whether this file shows it."""
    by_bits = {one.bits: one for one in document.summary}
    paper = [row for row in document.rows if row.tier == "paper" and row.bits == _COLLAPSE]
    if paper and _COLLAPSE in by_bits:
        published = min(row.difference.percent or 0.0 for row in paper)
        ours = by_bits[_COLLAPSE]
        gone = (ours.increase.percent or 0.0) < 0.5 * published
        yield (
            f"The collapse below 6 bits disappears: {_met(gone)}. At {_COLLAPSE:g} bits myQASR's own "
            f"quantiser adds {published:.1f} points, `auto` {points(ours.increase)}."
        )
    whole = [one for one in document.summary if one.bits >= _WHOLE]
    if whole:
        met = all(not excludes_zero(one.increase) for one in whole)
        lowest = min(whole, key=lambda one: one.bits)
        yield (
            f"Full precision's error rate down to {_WHOLE:g} bits: {_met(met)}. At {lowest.bits:g} bits the "
            f"difference is {points(lowest.increase)}."
        )
    for bits in _HALVED:
        if one := by_bits.get(bits):
            least = one.share is not None and one.share <= 0.5
            sure = excludes_zero(one.difference) and (one.difference.percent or 0.0) < 0
            share = "–" if one.share is None else f"{one.share:.2f}"
            yield (
                f"At {bits:g} bits an increase of at most half of the best myQASR's, surely below it: "
                f"{_met(least and sure)}. It is {share} of it; the difference is {points(one.difference)}."
            )
    shares = [one.bytes_share for one in document.summary if one.bits in _HALVED and one.bytes_share]
    if shares:
        yield (
            f"No more errors than myQASR with at most {_BYTES:.0%} of its bytes: "
            f"{_met(max(shares) <= _BYTES)}. The share is {min(shares):.2f} to {max(shares):.2f}."
        )


def _met(met: bool) -> str:
    return "met" if met else "not met"
