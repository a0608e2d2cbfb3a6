"""Tables, sentences and panels of paired contrasts, for the experiments on whom a model is calibrated on."""

from __future__ import annotations

from collections.abc import Sequence

from bitvox.benchmarks.experiments.contrasts import Contrast
from bitvox.benchmarks.experiments.figures import Line, Panel
from bitvox.benchmarks.experiments.results import Provenance
from bitvox.benchmarks.experiments.tables import excludes_zero, listed, points, table

EXPLAINED = (
    "A negative difference is in favour of the first. `divergence` is KL(full precision || model) per frame, "
    "which needs no transcript: how far above the other's it lies, geometric mean over speakers. Where full "
    "precision itself misses most words (speechocean762: an open vocabulary) it is the statistic to look at. "
    "`found at 80 %` is the true difference that a two-sided test at 5 % with these speakers would find in "
    "80 % of trials: what a null result leaves open. Groups of fewer than 4 speakers are left out; nothing "
    "is corrected for the number of comparisons."
)


# An interval that resamples fewer speakers says nothing.
_FEWEST = 4


def tellable(found: Sequence[Contrast]) -> list[Contrast]:
    """Those with speakers enough."""
    return [one for one in found if one.speakers >= _FEWEST]


def contrasts_table(found: Sequence[Contrast]) -> str:
    """One row a contrast."""
    headers = (
        "data",
        "judged",
        "method",
        "budget of",
        "calibrated on",
        "against",
        "speakers",
        "WER difference, points",
        "found at 80 %",
        "divergence, %",
        "found at 80 %",
    )
    return table(headers, [_line(one) for one in found])


def _line(one: Contrast) -> tuple[object, ...]:
    return (
        one.corpus,
        one.people,
        one.method,
        f"{one.bits:g} bits",
        one.on,
        one.against,
        one.speakers,
        points(one.words),
        _number(one.detectable_words),
        points(one.divergence),
        _number(one.detectable_divergence),
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def verdict(found: Sequence[Contrast], what: str, against: str) -> str:
    """How many of the contrasts with something tell, and which way: a null is said as plainly as a win."""
    some = [one for one in found if one.against == against]
    if not some:
        return ""
    parts = []
    for name, rates in (
        ("WER", [one.words for one in some]),
        ("divergence", [one.divergence for one in some]),
    ):
        down = sum(excludes_zero(rate) and (rate.percent or 0) < 0 for rate in rates)
        up = sum(excludes_zero(rate) and (rate.percent or 0) > 0 for rate in rates)
        null = len(rates) - down - up
        parts.append(f"{name} lower by more than chance in {down}, higher in {up}, undecided in {null}")
    words = [one.detectable_words for one in some if one.detectable_words is not None]
    told = f"{len(some)} comparison{'' if len(some) == 1 else 's'}"
    least = ""
    if words:
        span = f"{min(words):.1f}" + (f" to {max(words):.1f}" if max(words) > min(words) else "")
        least = f"; a difference of {span} points of WER would have been found in 80 % of trials"
    return f"{what} against {against}, {told}: {listed(parts)}{least}."


def coverage(found: Provenance, rows: int) -> str:
    """How much of the experiment is measured, where it was stopped."""
    planned = int(found.data["rows planned"])
    return "" if rows == planned else f"Stopped after {rows} of {planned} rows; the same command goes on."


def panels(found: Sequence[Contrast], people: str = "all") -> list[Panel]:
    """For every data set and method, the divergence against each rival over bits."""
    drawn = []
    for corpus, method in dict.fromkeys((one.corpus, one.method) for one in found):
        here = [one for one in found if (one.corpus, one.method, one.people) == (corpus, method, people)]
        names = dict.fromkeys((one.on, one.against) for one in here)
        lines = []
        for on, against in names:
            some = sorted(
                (one for one in here if (one.on, one.against) == (on, against)), key=lambda one: one.bits
            )
            rates = tuple(one.divergence for one in some)
            lines.append(Line(f"{on} − {against}", tuple(one.bits for one in some), rates))
        if lines:
            title = f"{corpus}, {method}"
            drawn.append(Panel(title, "bits a weight", "divergence, % above", tuple(lines), zero=True))
    return drawn
