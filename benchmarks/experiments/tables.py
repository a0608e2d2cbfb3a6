"""Markdown tables and the numbers in them, written the same way everywhere."""

from __future__ import annotations

from collections.abc import Sequence

from bitvox.benchmarks.experiments.results import Cell, Provenance, Rate


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def percent(rate: Rate) -> str:
    """`31.2 [28.0, 34.5]`; a dash where it is not defined."""
    if rate.percent is None:
        return "–"
    return f"{rate.percent:.1f} [{rate.low:.1f}, {rate.high:.1f}]"


def points(rate: Rate) -> str:
    """A difference in points, with its sign: `+1.2 [-0.3, +2.7]`."""
    if rate.percent is None:
        return "–"
    return f"{rate.percent:+.1f} [{rate.low:+.1f}, {rate.high:+.1f}]"


def excludes_zero(rate: Rate) -> bool:
    """Whether the interval leaves zero out."""
    return rate.low is not None and rate.high is not None and not rate.low <= 0 <= rate.high


def count(number: int) -> str:
    """Bytes with separators."""
    return f"{number:,}"


def listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def origin(found: Provenance, rows: Sequence[Cell]) -> str:
    """The command that made a table, where it ran, and every commit that a row was measured at."""
    versions = ", ".join(f"{name} {number}" for name, number in found.versions.items())
    data = "".join(f"{name}: {text}. " for name, text in found.data.items())
    fingerprint = f" ({found.fingerprint[:12]})" if found.fingerprint else ""
    commits = list(dict.fromkeys(row.commit for row in rows)) or [found.commit]
    named = f"Commit{'s' if len(commits) > 1 else ''} {listed(commits)}"
    machine = f"{found.machine['cpu']}, {found.machine['cores']} cores"
    return f"    {found.command}\n\n{named}; {machine}. {found.model}{fingerprint}. {data}{versions}."
