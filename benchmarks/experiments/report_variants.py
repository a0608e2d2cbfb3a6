"""The sections made of variants: what each choice of myQASR is worth, and how far down clips can go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bitvox.benchmarks.experiments.figures import Line, Panel, draw
from bitvox.benchmarks.experiments.results import read_document
from bitvox.benchmarks.experiments.tables import excludes_zero, origin, percent, points, table
from bitvox.benchmarks.experiments.variants import VariantDocument, VariantSummary

_READING = (
    "WER in percent, divergence KL(full precision || variant) in thousandths of a nat a frame; differences "
    "are to the first line of each study, on the same draws of clips. Intervals are over speakers and, where "
    "there are several, over draws of calibration clips. Seconds are those of the CPU on one thread from "
    "clips to a quantised model; memory is the process's peak meanwhile, judged recordings included."
)

_ABOUT = {
    "ablations": (
        "## What each choice of myQASR is worth",
        "Bits are those of the budget. Tier `paper` quantises as published: a weight step per layer, 8-bit "
        "activations with calibrated ranges. Tier `default`: a step per output channel, 8-bit activations "
        "ranged at each call, convolutions' inputs in float. Sensitivities `kl`, `l1`, `l2` and `frobenius` "
        "are distances of the model's output with one layer at 4 bits.",
    ),
    "clips": (
        "## How far down clips can go",
        "`auto` at 2.5 bits, 8-bit activations ranged at each call. `rounding`: the widths are those found "
        "on 32 other clips, and only rounding sees fewer; `widths and rounding`: everything does.",
    ),
}


def section(path: Path) -> str:
    """A table and a sentence for every study."""
    document = read_document(path, VariantDocument)
    title, about = _ABOUT[document.experiment]
    parts = [title, origin(document.provenance, document.rows), about, _READING]
    for study, group in studies(document.summary):
        parts += [f"### {study}", _table(group), _sentence(group)]
    return "\n\n".join(part for part in parts if part)


def figure(path: Path, out: Path) -> None:
    """Divergence of every variant, a panel a study."""
    document = read_document(path, VariantDocument)
    draw([_panel(study, group) for study, group in studies(document.summary)], out)


def studies(found: Sequence[VariantSummary]) -> list[tuple[str, list[VariantSummary]]]:
    """Summaries by study, tier and budget, under a heading; the reference first."""
    groups: dict[str, list[VariantSummary]] = {}
    for one in found:
        groups.setdefault(f"{one.study}, tier {one.tier}, {one.bits:g} bits", []).append(one)
    return [
        (name, sorted(group, key=lambda one: not one.reference)) for name, group in groups.items() if group
    ]


def _table(group: Sequence[VariantSummary]) -> str:
    headers = ("", "draws", "audio s", "bits", "WER", "− first", "divergence", "− first", "CPU s", "MiB")
    lines = [
        (
            one.name,
            one.draws,
            f"{one.clip_seconds:.0f}",
            f"{one.average_bits:.2f}",
            percent(one.words),
            "" if one.reference else points(one.words_against),
            percent(one.divergence),
            "" if one.reference else points(one.divergence_against),
            f"{one.compile_seconds:.1f}",
            "–" if one.peak_mib is None else f"{one.peak_mib:.0f}",
        )
        for one in group
    ]
    return table(headers, lines)


def _sentence(group: Sequence[VariantSummary]) -> str:
    if not group[0].reference or len(group) < 2:
        return ""
    first, *others = group
    counted = []
    for what, rates in (
        ("errors", [one.words_against for one in others]),
        ("divergence", [one.divergence_against for one in others]),
    ):
        sure = [rate for rate in rates if excludes_zero(rate)]
        less = sum((rate.percent or 0.0) < 0 for rate in sure)
        counted.append(
            f"{what}: {less} less, {len(sure) - less} more, {len(others) - len(sure)} not told apart"
        )
    return (
        f"Beside `{first.name}`, of {len(others)} others by the interval of the difference – "
        f"{'; '.join(counted)}."
    )


def _panel(study: str, group: Sequence[VariantSummary]) -> Panel:
    line = Line("", tuple(map(float, range(len(group)))), tuple(one.divergence for one in group))
    return Panel(study, "", "divergence, mnat a frame", (line,), ticks=tuple(one.name for one in group))
