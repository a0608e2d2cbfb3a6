"""The section on the speaker, and the age, that a model is calibrated on."""

from __future__ import annotations

from pathlib import Path

from bitvox.benchmarks.experiments.contrasts import Contrast
from bitvox.benchmarks.experiments.figures import Line, Panel, draw
from bitvox.benchmarks.experiments.report_contrasts import (
    EXPLAINED,
    contrasts_table,
    coverage,
    panels,
    tellable,
    verdict,
)
from bitvox.benchmarks.experiments.results import read_document
from bitvox.benchmarks.experiments.speaker_rows import SpeakersDocument
from bitvox.benchmarks.experiments.tables import excludes_zero, listed, origin, points


def section(path: Path) -> str:
    """The user against others, then the shares of the user beside a generic set."""
    document = read_document(path, SpeakersDocument)
    split = document.experiment.removeprefix("speakers_")
    found = tellable(document.summary)
    against = [one for one in found if not _is_share(one)]
    shares = [one for one in found if _is_share(one)]
    rivals = ("same kind", "other gender", "other age", "mix", "none")
    everyone = [one for one in against if one.people == "all"]
    verdicts = [verdict(everyone, "The user's own voice", rival) for rival in rivals]
    covered = coverage(document.provenance, len(document.rows))
    return "\n\n".join(
        [
            f"## Speaker and age ({split})",
            origin(document.provenance, document.rows),
            *([covered] if covered else []),
            "One half of a speaker's recordings calibrates, the other judges, then they swap; each set has "
            "the same seconds (or what there is of a speaker). `same kind`: another speaker of the same "
            "gender and age group; `mix`: training speakers in turn, five draws. Widths of `auto` are those "
            "found on generic training recordings, so that sets differ in the rounding, at equal bytes.",
            EXPLAINED,
            contrasts_table(against),
            *(one for one in verdicts if one),
            *(_shares(shares, document.provenance.data["generic"]) if shares else ()),
        ]
    )


def _shares(found: list[Contrast], generic: str) -> list[str]:
    return [
        "### The user's share",
        f"Second moments (1 − share) H_generic + share H_user, H_generic from {generic}; against the "
        "generic ones alone:",
        contrasts_table(found),
        _shares_sentence(found),
    ]


def _shares_sentence(found: list[Contrast]) -> str:
    told = [one for one in found if excludes_zero(one.divergence) and (one.divergence.percent or 0) < 0]
    if not told:
        return "No share of the user has a divergence below the generic set's by more than chance."
    places = [
        f"{one.corpus}, {one.people}, {one.bits:g} bits, {one.on} ({points(one.divergence)} %)"
        for one in told
    ]
    return f"Below the generic set's divergence by more than chance: {listed(places)}."


def figure(path: Path, out: Path) -> None:
    """The user against others over bits; the divergence over the user's share."""
    found = tellable(read_document(path, SpeakersDocument).summary)
    drawn = panels([one for one in found if not _is_share(one)])
    shares = [one for one in found if _is_share(one) and one.people == "all"]
    for corpus in dict.fromkeys(one.corpus for one in shares):
        here = [one for one in shares if one.corpus == corpus]
        arms = dict.fromkeys((one.bits, one.on.partition(", ")[2]) for one in here)
        lines = []
        for bits, seconds in arms:
            some = [one for one in here if (one.bits, one.on.partition(", ")[2]) == (bits, seconds)]
            values = tuple(float(one.on.partition(", ")[0].removeprefix("own share ")) for one in some)
            lines.append(Line(f"{bits:g} bits, {seconds}", values, tuple(one.divergence for one in some)))
        title = f"{corpus}: the user's share"
        drawn.append(
            Panel(title, "share of the user", "divergence, % above generic", tuple(lines), zero=True)
        )
    draw(drawn, out)


def _is_share(one: Contrast) -> bool:
    return one.on.startswith("own share")
