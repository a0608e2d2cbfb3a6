"""From measurements to files: every number of a machine as JSON, and what all of them mean as one page."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bitvox.benchmarks.kernels.goals import check, peak_of
from bitvox.benchmarks.kernels.timing import Timing, ratio

Results = dict[str, Any]
WIDTHS = tuple(range(2, 9))
PEERS = (
    "ort fp32",
    "ort int8",
    "ort 2 g32",
    "ort 4 g32",
    "ort 8 g32",
    "torch int8",
    "xnn int8",
    "xnn 4",
    "xnn 4 g32",
)


def write(results: Results, folder: Path) -> Path:
    """Write `kernels/<machine>.json` into the folder; each CPU and path has a file of its own."""
    results["goals"] = [goal.as_json() for goal in check(results)]
    results["ratios"] = _ratios(results)
    machine = results["machine"]
    name = re.sub(r"[^a-z0-9]+", "-", f"{machine['cpu']} {machine['path']}".lower()).strip("-")
    path = folder / "kernels" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_rounded(results), indent=1) + "\n")
    return path


def recorded(folder: Path) -> list[Results]:
    """What the files in `kernels/` hold, by name."""
    return [json.loads(path.read_text()) for path in sorted((folder / "kernels").glob("*.json"))]


def write_page(folder: Path) -> None:
    """Write `kernels.md` from every machine's file."""
    lines = [
        "# Kernels against peers",
        "",
        "One thread and CPU time unless a table says otherwise; methods interleaved in one process, each"
        " after an untimed call. Times are the least over the rounds in microseconds, less what the call"
        " costs on a tiny layer; ratios are medians over rounds, with quartiles. Quantisation is included.",
        "",
    ]
    for results in recorded(folder):
        lines += _section(results)
    (folder / "kernels.md").write_text("\n".join(lines))


def _section(results: Results) -> list[str]:
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    matrix = f" ({results['amx_peak_gops']:.0f} by matrix registers)" if "amx_peak_gops" in results else ""
    return [
        f"## {machine['cpu']}, path {machine['path']}",
        "",
        f"{versions}.",
        f"Measured limits of one core: {results['vnni_peak_gops']:.0f} GOPS of 8-bit dot products{matrix},"
        f" {results['read_bandwidth_gbs']:.1f} GB/s of reading.",
        "",
        "### Goals",
        "",
        *_table(("goal", "wanted", "measured", "at", "met"), (goal.cells() for goal in check(results))),
        "",
        "Missed, by the worst row, and what was tried:",
        "",
        *(goal.shortfall() for goal in check(results) if not goal.met),
        "",
        "### Linear, one scale per output (`g32`: per 32 inputs)",
        "",
        *_linear_table(results),
        "",
        "### Share of the 8-bit peak, best round",
        "",
        *_peak_table(results),
        "",
        "### Conv1d",
        "",
        *_conv_table(results),
        "",
        "### One row streaming through 48 layers of 768 x 3072, microseconds per layer",
        "",
        *_streaming_table(results),
        "",
        "### AVX2 alone, and two threads (wall time)",
        "",
        *_other_tables(results),
        "",
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows)]


def _least(rounds: Sequence[float]) -> str:
    value = min(rounds)
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _linear_table(results: Results) -> list[str]:
    names = [f"ours {bits}" for bits in WIDTHS] + ["ours 4 g32", *PEERS]
    if all("ours 4 g32 steps" in row["us"] for row in results["linear"]):
        names.insert(names.index("ours 4 g32") + 1, "ours 4 g32 steps")
    head = ("K x N, M", *names)
    return _table(
        head, ((_shape(row), *(_least(row["us"][name]) for name in names)) for row in results["linear"])
    )


def _shape(row: Results) -> str:
    return f"{row['k']} x {row['n']}, {row['m']}"


def _peak_table(results: Results) -> list[str]:
    names = [
        *(f"ours {bits}" for bits in WIDTHS),
        "ours 4 g32",
        "ours 8 g32",
        "ort int8",
        "xnn int8",
        "xnn 4",
    ]

    def share(row: Results, name: str) -> str:
        operations = 2e-3 * row["k"] * row["n"] * row["m"]
        return f"{100 * operations / min(row['us'][name]) / peak_of(results):.0f} %"

    rows = (row for row in results["linear"] if row["m"] >= 50)
    return _table(
        ("K x N, M", *names), ((_shape(row), *(share(row, name) for name in names)) for row in rows)
    )


def _conv_table(results: Results) -> list[str]:
    names = [*(f"ours {bits}" for bits in WIDTHS), "ours 8 calibrated", "ort fp32", "ort int8"]
    return _table(
        ("layer", *names, "ours 4 vs int8", "ours 4 vs fp32"),
        (
            (
                row["name"],
                *(_least(row["us"][name]) for name in names),
                _ratio(row, "ort int8", "ours 4"),
                _ratio(row, "ort fp32", "ours 4"),
            )
            for row in results["conv1d"]
        ),
    )


def _ratio(row: Results, slow: str, fast: str) -> str:
    middle, low, high = ratio(Timing(tuple(row["us"][slow])), Timing(tuple(row["us"][fast])))
    return f"{middle:.2f} ({low:.2f}..{high:.2f})"


def _streaming_table(results: Results) -> list[str]:
    us = results["streaming"]["us"]
    rows = []
    for name, rounds in us.items():
        words = name.split()
        bits = int(words[1]) if words[1].isdigit() else 8
        rows.append(
            (
                name,
                _least(rounds),
                f"{statistics.median(rounds):.1f}",
                f"{768 * 3072 * bits / 8e3 / min(rounds):.1f}",
            )
        )
    return _table(("method", "least", "median", "GB/s of codes"), rows)


def _other_tables(results: Results) -> list[str]:
    names = [*(f"ours {bits}" for bits in WIDTHS), "ort fp32"]
    avx2 = _table(
        ("AVX2, K x N, M", *names),
        ((_shape(row), *(_least(row["us"][name]) for name in names)) for row in results["avx2"]),
    )
    if alone := results.get("avx2_alone"):
        names = [*(f"ours {bits}" for bits in WIDTHS), "torch fp32"]
        avx2 += [
            "",
            *_table(
                ("everything limited to AVX2, K x N, M", *names),
                ((_shape(row), *(_least(row["us"][name]) for name in names)) for row in alone),
            ),
        ]
    methods = ["ours 2", "ours 4", "ours 8", "ort int8"]
    if all("limit x2" in row["us"] for row in results["threads"]):
        methods.append("limit")  # the same loop on one core and on two
    names = [f"{method} x{threads}" for method in methods for threads in (1, 2)]
    threads = _table(
        ("threads, K x N, M", *names),
        ((_shape(row), *(_least(row["us"][name]) for name in names)) for row in results["threads"]),
    )
    return [*avx2, "", *threads]


def _ratios(results: Results) -> list[Results]:
    """Every peer over ours at 4 and 8 bits, per linear: median and quartiles."""
    rows = []
    for row in results["linear"]:
        peers = [name for name in row["us"] if not name.startswith("ours")]
        pairs = {
            f"{peer} / {mine}": _spread(row, peer, mine)
            for peer in peers
            for mine in ("ours 2", "ours 4", "ours 8")
        }
        rows.append({"k": row["k"], "n": row["n"], "m": row["m"], "ratios": pairs})
    return rows


def _spread(row: Results, slow: str, fast: str) -> tuple[float, float, float]:
    return ratio(Timing(tuple(row["us"][slow])), Timing(tuple(row["us"][fast])))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
