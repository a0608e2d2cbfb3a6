"""The speed goals, checked against what was measured: the worst row of each decides."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from bitvox.benchmarks.kernels.timing import Timing, ratio
from bitvox.benchmarks.kernels.tried import TRIED

Results = dict[str, Any]
NARROW = tuple(range(2, 8))
WIDTHS = tuple(range(2, 9))
GROUPED = (2, 3, 4, 8)
STEPPED = (2, 3, 4)


@dataclass(frozen=True)
class Goal:
    """One goal: what is wanted, the worst that was measured, and where."""

    name: str
    wanted: float
    measured: float
    at: str
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether the worst row reaches the goal."""
        return self.measured <= self.wanted if self.at_most else self.measured >= self.wanted

    def cells(self) -> tuple[str, ...]:
        """A row of the table."""
        sign = "≤" if self.at_most else "≥"
        return (
            self.name,
            f"{sign} {self.wanted:g}",
            f"{self.measured:.3g}",
            self.at,
            "yes" if self.met else "no",
        )

    def shortfall(self) -> str:
        """By how much it is missed, and what was tried."""
        by = abs(self.measured / self.wanted - 1)
        return f"- **{self.name}**: missed by {100 * by:.0f} % at {self.at}. {TRIED[self.name]}"

    def as_json(self) -> dict[str, object]:
        """A row of the JSON."""
        return {**asdict(self), "met": self.met}


def peak_of(results: Results) -> float:
    """8-bit operations per second of one core at best: of matrix registers where there are any."""
    return float(results["amx_peak_gops" if "amx_peak_gops" in results else "vnni_peak_gops"])


def check(results: Results) -> list[Goal]:
    """Every goal with its worst row."""
    linear = results["linear"]
    many = [row for row in linear if row["m"] >= 50]
    few = [row for row in linear if row["m"] < 50]
    half = [row for row in linear if row["m"] == 50]
    large = [row for row in linear if row["m"] >= 250]
    peak = peak_of(results)
    goals = [
        _worst(
            "time of every n < 8 over ours at 8, M ≥ 50", 1.0, _pairs(many, NARROW, _over_int8), at_most=True
        ),
        _worst("share of dot-product peak, M ≥ 250", 0.90, _pairs(large, WIDTHS, _share(peak))),
        _worst("share of dot-product peak, M = 50", 0.85, _pairs(half, WIDTHS, _share(peak))),
        _worst(
            "ours 8 against the best int8 peer",
            1.05,
            _against(many, "ours 8", ("ort int8", "torch int8", "xnn int8")),
        ),
        _worst("ours 4 against the best int4 peer", 1.15, _against(many, "ours 4", ("xnn 4", "ort 4 g128"))),
        # Why no site of an ExecuTorch bundle with packed kernels is left to XNNPACK.
        _worst("ours 4 against XNNPACK's 4, every M", 1.0, _against(linear, "ours 4", ("xnn 4",))),
        _worst("ours 8 against XNNPACK's 8, M ≥ 50", 1.0, _against(many, "ours 8", ("xnn int8",))),
        _worst("ours 8 against XNNPACK's 8, M < 50", 1.0, _against(few, "ours 8", ("xnn int8",))),
        _worst(
            "ours 4 g32 against the best int4 g32 peer",
            1.15,
            _against(many, "ours 4 g32", ("xnn 4 g32", "ort 4 g32")),
        ),
        _worst("ours 4 g32 against MatMulNBits 4 g32", 3.0, _against(many, "ours 4 g32", ("ort 4 g32",))),
        _worst("ours 8 g32 against MatMulNBits 8 g32", 2.7, _against(many, "ours 8 g32", ("ort 8 g32",))),
        _worst("ours 2 g32 against MatMulNBits 2 g32", 6.0, _against(many, "ours 2 g32", ("ort 2 g32",))),
        _worst("group 32 over one scale per output", 1.05, _pairs(many, GROUPED, _group_cost), at_most=True),
        *_stepped(many),
        _worst("M = 4 over M = 1, same layer", 3.0, _four_over_one(linear), at_most=True),
    ]
    return [*goals, *_streaming(results), *_others(results)]


Rows = Iterable[tuple[float, str]]


def _stepped(many: list[Results]) -> list[Goal]:
    """Machines that ran before there were such scales have no rows for it."""
    rows = [row for row in many if "ours 4 g32 steps" in row["us"]]
    values = [
        (_median(row, f"ours {bits} g32 steps", f"ours {bits}"), _where(row, f", {bits} bits"))
        for row in rows
        for bits in STEPPED
    ]
    if not values:
        return []
    return [_worst("group 32 in integer steps over one scale per output", 1.05, values, at_most=True)]


def _worst(name: str, wanted: float, rows: Rows, at_most: bool = False) -> Goal:
    measured, at = (max if at_most else min)(rows)
    return Goal(name, wanted, measured, at, at_most)


def _where(row: Results, extra: str = "") -> str:
    return f"{row['k']} x {row['n']}, M={row['m']}{extra}"


def _pairs(rows: list[Results], widths: tuple[int, ...], value: Callable[[Results, int], float]) -> Rows:
    return [(value(row, bits), _where(row, f", {bits} bits")) for row in rows for bits in widths]


def _median(row: Results, slow: str, fast: str) -> float:
    return ratio(Timing(tuple(row["us"][slow])), Timing(tuple(row["us"][fast])))[0]


def _over_int8(row: Results, bits: int) -> float:
    return _median(row, f"ours {bits}", "ours 8")


def _group_cost(row: Results, bits: int) -> float:
    return _median(row, f"ours {bits} g32", f"ours {bits}")


def _share(peak: float) -> Callable[[Results, int], float]:
    def share(row: Results, bits: int) -> float:
        return float(2e-3 * row["k"] * row["n"] * row["m"] / min(row["us"][f"ours {bits}"]) / peak)

    return share


def _against(rows: list[Results], mine: str, peers: tuple[str, ...]) -> Rows:
    return [(_median(row, peer, mine), _where(row, f", {peer}")) for row in rows for peer in peers]


def _four_over_one(linear: list[Results]) -> Rows:
    one = {(row["k"], row["n"]): row for row in linear if row["m"] == 1}
    for row in (row for row in linear if row["m"] == 4):
        for bits in WIDTHS:
            name = f"ours {bits}"
            yield (
                min(row["us"][name]) / min(one[row["k"], row["n"]]["us"][name]),
                _where(row, f", {bits} bits"),
            )


def _streaming(results: Results) -> list[Goal]:
    us = results["streaming"]["us"]
    bandwidth = max(results["streaming"]["read_bandwidth_gbs"])
    shares = [
        (768 * 3072 * bits / 8e3 / min(us[f"ours {bits}"]) / bandwidth, f"{bits} bits") for bits in WIDTHS
    ]
    slopes = [(min(us[f"ours {bits}"]) / min(us["ours 8"]) / (bits / 8), f"{bits} bits") for bits in NARROW]
    return [
        _worst("streaming: share of read bandwidth", 0.90, shares),
        _worst("streaming: time over n/8 of the time at 8", 1.10, slopes, at_most=True),
    ]


def _others(results: Results) -> list[Goal]:
    extractor = [row for row in results["conv1d"] if row["name"].startswith("extractor")]
    convs = [
        (_median(row, "ort int8", f"ours {bits}"), f"{row['name']}, {bits} bits")
        for row in extractor
        for bits in WIDTHS
    ]
    threads = [
        (_median(row, f"ours {bits} x1", f"ours {bits} x2"), _where(row, f", {bits} bits"))
        for row in results["threads"]
        for bits in (2, 4, 8)
    ]
    return [
        *_avx2("AVX2 alone against fp32 (ORT, all of this CPU)", "ort fp32", results["avx2"]),
        *_avx2("AVX2 alone against fp32 (torch, AVX2 too)", "torch fp32", results.get("avx2_alone", [])),
        _worst("extractor convolutions against QLinearConv", 1.1, convs),
        _worst("two threads against one", 1.85, threads),
    ]


def _avx2(name: str, fp32: str, rows: list[Results]) -> list[Goal]:
    narrow = [
        (_median(row, fp32, f"ours {bits}"), _where(row, f", {bits} bits"))
        for row in rows
        for bits in (2, 3, 4)
    ]
    wide = [(_median(row, fp32, "ours 8"), _where(row)) for row in rows]
    if not rows:
        return []
    return [_worst(f"{name}, n ≤ 4", 2.3, narrow), _worst(f"{name}, n = 8", 1.6, wide)]
