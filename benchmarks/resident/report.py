"""The page that people read, from what was measured."""

from __future__ import annotations

from typing import Any

from bitvox.benchmarks.experiments.tables import table
from bitvox.benchmarks.resident.measure import LENGTHS

_MOST_OPERATORS = 12
_BESIDE_WEIGHTS = 60_000_000
_PEAK = 1.3
_OVER_FLOAT, _OVER_INT8 = 3.0, 1.15
_BYTES = 45_000_000


_METHOD = (
    "Memory is of a fresh process, less that of one that imports the same runtime and loads nothing. Times "
    "are CPU time of the one thread, models of both runtimes taking turns in one process: medians and "
    "quartiles, ratios round by round. Operators: least wall time of each node over a few runs, by the "
    "runtime's own profiler; an XNNPACK delegate is timed as a whole and named after the nodes in it. On a "
    "loaded machine the wall charges a long node for its neighbours: compare nodes, not their sum with a run."
)


def text(document: dict[str, Any]) -> str:
    """The page, in Markdown."""
    machine = document["machine"]
    lines = [
        "# Packed kernels, full size",
        "",
        f"Wav2Vec2ForCTC, {document['parameters'] / 1e6:.1f} million random weights; {machine['cpu']} "
        f"({machine['cores']} cores, load {machine['load']}), path {document['isa']}; one thread; commit "
        f"{document['commit']}. `python -m bitvox.benchmarks.resident` makes this page again.",
        "",
        _METHOD,
        "",
    ]
    met = table(["goal", "wanted", "measured", "met"], goals(document))
    parts = [met, *(part(document) for part in (_sizes, _times, _ratios, _operators))]
    return "\n".join(lines) + "\n" + "\n\n".join(parts) + "\n"


def goals(document: dict[str, Any]) -> list[list[str]]:
    """A line for each goal of each model of ours: what, wanted, measured, met."""
    lines = []
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
            for kind, least in (("fp32", _OVER_FLOAT), ("int8", _OVER_INT8)):
                peer = fastest(document, kind, seconds)
                ratio = row["times"][str(seconds)]["over"][peer]["median"]
                what = f"{name}: times faster than {peer}, the faster {kind}, {seconds} s"
                lines.append([what, f"≥ {least}", f"{ratio:.2f}", "yes" if ratio >= least else "no"])
    return lines


def fastest(document: dict[str, Any], kind: str, seconds: int) -> str:
    """The model of either runtime whose name ends in `kind` that takes least time."""
    models = document["models"]
    names = [name for name in models if name.endswith(kind)]
    return min(names, key=lambda name: models[name]["times"][str(seconds)]["run"]["median"])


def _at_most(name: str, value: float, most: float) -> list[str]:
    return [name, f"≤ {most:.1f}", f"{value:.1f}", "yes" if value <= most else "no"]


def _sizes(document: dict[str, Any]) -> str:
    after = [f"after {seconds} s" for seconds in LENGTHS]
    heads = ["model, MB", "", "files", "weights", "loaded", "peak", *after, "load, s", "worst site"]
    lines = []
    for name, row in document["models"].items():
        cells = [row[part] for part in ("bytes", "weight_bytes", "loaded", "loading_peak")]
        cells += row["after"].values()
        shown = ["" if cell is None else f"{cell / 1e6:.1f}" for cell in cells]
        parity = "" if row["parity"] is None else f"{row['parity']:.0e}"
        lines.append([name, row["what"], *shown, f"{row['load_seconds']:.2f}", parity])
    worst = "worst site: its largest relative difference from the quantised torch model."
    return f"{table(heads, lines)}\n\n{worst}"


def _times(document: dict[str, Any]) -> str:
    heads = ["model", *(f"{seconds} s, ms" for seconds in LENGTHS)]
    lines = []
    for name, row in document["models"].items():
        runs = [row["times"][str(seconds)]["run"] for seconds in LENGTHS]
        lines.append([name, *(_spread(run, 1e3, 0) for run in runs)])
    return table(heads, lines)


def _ratios(document: dict[str, Any]) -> str:
    models = document["models"]
    peers = [name for name, row in models.items() if row["weight_bytes"] is None]
    heads = ["times faster than", *(f"{peer}, {seconds} s" for seconds in LENGTHS for peer in peers)]
    lines = []
    for name, row in models.items():
        if name not in peers:
            over = [row["times"][str(seconds)]["over"][peer] for seconds in LENGTHS for peer in peers]
            lines.append([name, *(_spread(one, 1, 2) for one in over)])
    return table(heads, lines)


def _spread(of: dict[str, float], factor: float, digits: int) -> str:
    low, median, high = (f"{factor * of[part]:.{digits}f}" for part in ("low", "median", "high"))
    return f"{median} ({low}..{high})"


def _operators(document: dict[str, Any]) -> str:
    parts = []
    for seconds, models in document["operators"].items():
        for name, rows in models.items():
            total = sum(time for _, _, time in rows)
            lines = [
                [operator, str(count), f"{1e3 * time:.1f}", f"{100 * time / total:.0f}"]
                for operator, count, time in rows[:_MOST_OPERATORS]
            ]
            rest = sum(time for _, _, time in rows[_MOST_OPERATORS:])
            lines.append(["all others", "", f"{1e3 * rest:.1f}", f"{100 * rest / total:.0f}"])
            parts.append(
                f"{name}, {seconds} s, {1e3 * total:.0f} ms in all:\n\n"
                + table(["operator", "calls", "ms", "%"], lines)
            )
    return "\n\n".join(parts)
