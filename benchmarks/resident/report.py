"""The table that people read, from what was measured."""

from __future__ import annotations

from typing import Any

from bitvox.benchmarks.resident.measure import LENGTHS

_MOST_OPERATORS = 10
_BESIDE_WEIGHTS = 60_000_000
_PEAK = 1.3
_OVER_FLOAT, _OVER_INT8 = 3.0, 1.15
_BYTES = 45_000_000


_METHOD = (
    "Memory is of a fresh process, less that of one that loads nothing. Times are CPU time of the one "
    "thread, models taking turns in one process; medians, ratios round by round. Operators: least wall time "
    "of each node."
)


def text(document: dict[str, Any]) -> str:
    """The page, in Markdown."""
    machine = document["machine"]
    lines = [
        "# Packed kernels in ONNX Runtime, full size",
        "",
        f"Wav2Vec2ForCTC, {document['parameters'] / 1e6:.1f} million random weights; {machine['cpu']} "
        f"({machine['cores']} cores, load {machine['load']}), path {document['isa']}; one thread; commit "
        f"{document['commit']}. `python -m bitvox.benchmarks.resident` makes this page again.",
        "",
        _METHOD,
        "",
    ]
    for part in (_goals, _sizes, _times, _operators):
        lines += [*part(document), ""]
    return "\n".join(lines)


def _goals(document: dict[str, Any]) -> list[str]:
    lines = ["| goal | wanted | measured | met |", "|---|---|---|---|"]
    for name, row in document["models"].items():
        if row["weight_bytes"] is None:
            continue
        allowed = row["weight_bytes"] + _BESIDE_WEIGHTS
        lines += [
            _at_most(f"{name}: model files, MB", row["bytes"] / 1e6, _BYTES / 1e6),
            _at_most(f"{name}: resident when loaded, MB", row["loaded"] / 1e6, allowed / 1e6),
            _at_most(f"{name}: peak of loading, MB", row["loading_peak"] / 1e6, _PEAK * allowed / 1e6),
        ]
        for seconds in LENGTHS:
            for peer, least in (("fp32", _OVER_FLOAT), ("int8", _OVER_INT8)):
                ratio = row[_ratio(peer, seconds)]["median"]
                met = "yes" if ratio >= least else "no"
                lines.append(f"| {name}: {_ratio(peer, seconds)} | ≥ {least} | {ratio:.2f} | {met} |")
    return lines


def _at_most(name: str, value: float, most: float) -> str:
    return f"| {name} | ≤ {most:.1f} | {value:.1f} | {'yes' if value <= most else 'no'} |"


def _ratio(peer: str, seconds: int) -> str:
    return f"times faster than {peer}, {seconds} s"


def _sizes(document: dict[str, Any]) -> list[str]:
    after = " | ".join(f"after {seconds} s" for seconds in LENGTHS)
    lines = [
        f"| model, MB | | files | weights | loaded | peak | {after} | load, s |",
        "|---" * (7 + len(LENGTHS)) + "|",
    ]
    for name, row in document["models"].items():
        cells = [row["bytes"], row["weight_bytes"], row["loaded"], row["loading_peak"]]
        cells += row["after"].values()
        shown = " | ".join("" if cell is None else f"{cell / 1e6:.1f}" for cell in cells)
        lines.append(f"| {name} | {row['what']} | {shown} | {row['load_seconds']:.2f} |")
    return lines


def _times(document: dict[str, Any]) -> list[str]:
    heads = [f"{s} s, ms | fp32 / it | int8 / it" for s in LENGTHS]
    lines = [f"| model | {' | '.join(heads)} |", "|---" * (1 + 3 * len(LENGTHS)) + "|"]
    for name, row in document["models"].items():
        cells = []
        for seconds in LENGTHS:
            time = row[f"run {seconds} s"]
            cells.append(f"{1e3 * time['median']:.0f} ({1e3 * time['low']:.0f}..{1e3 * time['high']:.0f})")
            cells += [f"{row[_ratio(peer, seconds)]['median']:.2f}" for peer in ("fp32", "int8")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _operators(document: dict[str, Any]) -> list[str]:
    lines = [f"Operators of a run of {LENGTHS[0]} s, ms:"]
    for name, rows in document["operators"].items():
        longest = ", ".join(f"{count} {op} {1e3 * time:.1f}" for op, count, time in rows[:_MOST_OPERATORS])
        total = 1e3 * sum(time for _, _, time in rows)
        lines += ["", f"- {name} ({total:.0f} in all): {longest}"]
    return lines
