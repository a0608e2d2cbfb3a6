"""The section on audio of another kind than what was calibrated with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bitvox.benchmarks.experiments.domains import CLEAN, DomainDocument, DomainSummary
from bitvox.benchmarks.experiments.figures import Line, Panel, draw
from bitvox.benchmarks.experiments.results import Rate, read_document
from bitvox.benchmarks.experiments.tables import excludes_zero, listed, origin, percent, points, table


def section(path: Path) -> str:
    """A table of kinds that are heard, and what follows from it."""
    document = read_document(path, DomainDocument)
    bits = next(row.bits for row in document.rows if row.bits is not None)
    return "\n\n".join(
        (
            "## Calibrated on one kind of audio, used on another",
            origin(document.provenance, document.rows),
            f"`auto` at {bits:g} bits, 8-bit activations ranged at each call. Widths are those found on "
            "other clean clips; weights are rounded on each draw of 32 clips of AN4's train speakers (of "
            "speechocean762 as many as are as long), made worse as named, or not. WER in percent, increases "
            "over full precision in points; divergence is KL(full precision || model) on the audio that is "
            "heard, in thousandths of a nat a frame. Intervals are over speakers and draws. Noise is pink; "
            "the room decays by 60 dB in 0.5 s; the telephone is 300 to 3400 Hz in mu-law at 8 kHz.",
            _words(document.summary),
            _divergences(document.summary),
            _sentences(document.summary),
        )
    )


def figure(path: Path, out: Path) -> None:
    """Divergence by what is heard: calibrated on clean and on its own kind."""
    found = read_document(path, DomainDocument).summary
    positions = tuple(map(float, range(len(found))))
    lines = (
        Line("calibrated on clean", positions, tuple(one.clean_divergence for one in found)),
        Line("calibrated on the same kind", positions, tuple(one.matched_divergence for one in found)),
    )
    ticks = tuple(one.heard.replace("reverberation", "reverb").replace("ocean762", "…") for one in found)
    draw([Panel("what is heard", "", "divergence, mnat a frame", lines, ticks=ticks)], out)


def _words(found: Sequence[DomainSummary]) -> str:
    headers = ("heard", "draws", "full precision", "clean − full", "matched − full", "clean − matched")
    return table(
        headers,
        [
            (
                one.heard,
                one.draws,
                percent(one.full),
                points(one.clean),
                points(one.matched),
                "" if one.heard == CLEAN else points(one.words_gain),
            )
            for one in found
        ],
    )


def _divergences(found: Sequence[DomainSummary]) -> str:
    headers = ("heard", "clean", "matched", "clean − matched", "on clean: matched − clean")
    return table(
        headers,
        [
            (
                one.heard,
                percent(one.clean_divergence),
                percent(one.matched_divergence),
                *(("", "") if one.heard == CLEAN else (points(one.divergence_gain), points(one.on_clean))),
            )
            for one in found
        ],
    )


def _sentences(found: Sequence[DomainSummary]) -> str:
    others = [one for one in found if one.heard != CLEAN]
    return " ".join(
        (
            _sentence("errors", others, [one.words_gain for one in others]),
            _sentence("divergence", others, [one.divergence_gain for one in others]),
        )
    )


def _sentence(what: str, others: Sequence[DomainSummary], gains: Sequence[Rate]) -> str:
    helps = [one.heard for one, gain in zip(others, gains, strict=True) if _sure(gain, 1)]
    hurts = [one.heard for one, gain in zip(others, gains, strict=True) if _sure(gain, -1)]
    told = [
        f"Calibrating on the kind that is heard lowers the {what} by more than chance for "
        f"{listed(helps) if helps else 'none'} of {len(others)} kinds"
    ]
    if hurts:
        told.append(f"raises it for {listed(hurts)}")
    return ", and ".join(told) + "."


def _sure(gain: Rate, sign: int) -> bool:
    return excludes_zero(gain) and sign * (gain.percent or 0.0) > 0
