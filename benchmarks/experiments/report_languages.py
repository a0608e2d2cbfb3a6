"""The section on languages: does it matter which one a multilingual model is calibrated on?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from bitvox.benchmarks.experiments.figures import Line, Panel, draw
from bitvox.benchmarks.experiments.languages import LanguagesDocument, Matrix
from bitvox.benchmarks.experiments.results import read_document
from bitvox.benchmarks.experiments.tables import count, excludes_zero, listed, origin, percent, points, table

_OTHER_COLUMNS = ("none", "full precision")


def section(path: Path) -> str:
    """What all pairs come to, then the matrix of each method and budget."""
    document = read_document(path, LanguagesDocument)
    found = document.summary
    parts = [
        "## Languages",
        origin(document.provenance, document.rows),
        "Rows of a matrix are the languages judged, columns those calibrated on, with equal clips of other "
        "speakers. Widths of `auto` are those found on clips of all languages, so that columns differ in the "
        "rounding, and with `none` it is to nearest; myQASR's widths are found on the language, and with "
        "`none` in an order drawn by seed. Error rates in percent (of a classifier the share of wrong "
        "labels; of languages written without spaces, characters). Activations are 8-bit, ranged at each "
        "call.",
        _scope(document),
        "Over all languages judged, calibrated on the language itself and on the others (mean). Divergence "
        "is KL(full precision || model) in thousandths of a nat a frame; intervals resample speakers:",
        _overview(found),
        f"Of {len(found)} matrices calibration on the language itself has "
        f"{_sentence('errors', found)}, and {_sentence('divergence', found)}, without correction for "
        "comparing so many.",
    ]
    for matrix in found:
        parts += [f"{matrix.method}, budget of {matrix.bits:g} bits:", _matrix(matrix)]
    return "\n\n".join(parts)


def _scope(document: LanguagesDocument) -> str:
    """What a run on the recipe's own voices cannot show."""
    if not document.provenance.model.startswith("build"):
        return "What it says holds for these recordings and this model."
    return (
        "The model is a classifier of spoken digits that `make reference-languages` trains, and **nobody "
        "speaks here**: espeak-ng says every clip, with the rules of each language but one formant "
        "synthesiser and the same voices in all of them. So the matrix shows what words and sounds of "
        "another language do to calibration; it cannot show what other speakers, rooms and microphones do, "
        "nor how a large multilingual recogniser such as Whisper behaves, which the same command judges once "
        "it is given one and its languages' folders."
    )


def _overview(found: Sequence[Matrix]) -> str:
    headers = (
        "method",
        "budget of",
        "bytes",
        "own %",
        "foreign %",
        "own − foreign",
        "divergence own",
        "foreign",
        "own − foreign",
        "own best or tied in",
    )
    lines = [
        (
            one.method,
            f"{one.bits:g} bits",
            count(one.bytes),
            percent(one.own),
            percent(one.foreign),
            points(one.difference),
            percent(one.own_divergence),
            percent(one.foreign_divergence),
            points(one.divergence_difference),
            f"{_best(one)} of {len(one.errors)}",
        )
        for one in found
    ]
    return table(headers, lines)


def _best(matrix: Matrix) -> int:
    """Languages on which calibration on the language itself makes no more errors than any other."""
    best = 0
    for code, columns in matrix.errors.items():
        rates = {name: one.rate.percent or 0.0 for name, one in columns.items() if name not in _OTHER_COLUMNS}
        best += rates[code] <= min(rates.values())
    return best


def _sentence(what: Literal["errors", "divergence"], found: Sequence[Matrix]) -> str:
    sides: dict[bool, list[str]] = {True: [], False: []}
    for one in found:
        difference = one.difference if what == "errors" else one.divergence_difference
        if excludes_zero(difference):
            sides[(difference.percent or 0.0) < 0].append(f"{one.method} at {one.bits:g} bits")
    fewer, more = (f"{len(side)}{f' ({listed(side)})' if side else ''}" for side in sides.values())
    return f"{'fewer' if what == 'errors' else 'less'} {what} by more than chance in {fewer}, more in {more}"


def _matrix(matrix: Matrix) -> str:
    names = list(next(iter(matrix.errors.values())))
    lines = [
        [code, *(_cell(code, name, columns[name].rate.percent) for name in names)]
        for code, columns in matrix.errors.items()
    ]
    return table(["judged on", *names], lines)


def _cell(code: str, name: str, value: float | None) -> str:
    text = "–" if value is None else f"{value:.1f}"
    return f"**{text}**" if code == name else text


def figure(path: Path, out: Path) -> None:
    """Divergence on own and foreign languages over bits, a panel a method."""
    found = read_document(path, LanguagesDocument).summary
    panels = []
    for method in dict.fromkeys(one.method for one in found):
        mine = sorted((one for one in found if one.method == method), key=lambda one: one.bits)
        bits = tuple(one.bits for one in mine)
        lines = (
            Line("own language", bits, tuple(one.own_divergence for one in mine)),
            Line("other languages", bits, tuple(one.foreign_divergence for one in mine)),
        )
        panels.append(Panel(method, "bits a weight", "divergence, mnat a frame", lines))
    draw(panels, out)
