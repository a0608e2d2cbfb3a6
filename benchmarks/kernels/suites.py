"""What is measured: shapes of speech models, our widths, and the peers that a user would otherwise pick."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import bitvox.runtime_kernels as rk
from bitvox.benchmarks.kernels import avx2_alone, onnx_peers, ours, torch_peers
from bitvox.benchmarks.kernels.limits import Limits
from bitvox.benchmarks.kernels.timing import Run, Timing, interleaved

Say = Callable[[str], None]
Results = dict[str, Any]
WIDTHS = tuple(range(2, 9))
GROUPED = (2, 3, 4, 8)
STEPPED = (2, 3, 4)

# K, N, M: wav2vec2's linears at 1, 5 and 15 seconds, its extractor as linears, decoder steps and beams.
LINEARS = (
    *((k, n, m) for m in (50, 250, 750) for k, n in ((768, 768), (768, 3072), (3072, 768))),
    *((1024, 512, 50), (1536, 512, 50), (1536, 512, 250), (1536, 512, 1599)),
    *((k, n, m) for m in (1, 4) for k, n in ((768, 768), (768, 3072), (3072, 768))),
)
# name, channels, outputs, taps, stride, padding, groups, frames in
CONVS = (
    ("extractor 2, k3 s2, 1 s", 512, 512, 3, 2, 0, 1, 3199),
    ("extractor 3, k3 s2, 1 s", 512, 512, 3, 2, 0, 1, 1599),
    ("extractor 6, k2 s2, 1 s", 512, 512, 2, 2, 0, 1, 199),
    ("extractor 2, k3 s2, 3 s", 512, 512, 3, 2, 0, 1, 9599),
    ("positional, k128 g16, 3 s", 768, 768, 128, 1, 64, 16, 149),
    ("Whisper conv 1, k3", 80, 384, 3, 1, 1, 1, 3000),
    ("Whisper conv 2, k3 s2", 384, 384, 3, 2, 1, 1, 3000),
)
STREAM_LAYERS = 48


def run_all(seconds: float, say: Say) -> Results:
    """Every suite, as one JSON document."""
    torch_peers.use_one_thread()
    limits = Limits()
    results: Results = {
        "machine": _machine(),
        "vnni_peak_gops": limits.vnni_peak() / 1e9,
        "read_bandwidth_gbs": limits.read_bandwidth() / 1e9,
    }
    if rk.isa() == "amx":
        results["amx_peak_gops"] = limits.amx_peak() / 1e9
    say(f"peak {results['vnni_peak_gops']:.0f} GOPS, reading {results['read_bandwidth_gbs']:.1f} GB/s")
    overhead = _overheads(seconds)
    results["overhead_us"] = overhead
    results["linear"] = [_linear_row(*shape, seconds, overhead, say) for shape in LINEARS]
    results["conv1d"] = [_conv_row(shape, seconds, say) for shape in CONVS]
    results["avx2"] = [_avx2_row(k, n, avx2_alone.ROWS, seconds, say) for k, n in avx2_alone.SHAPES]
    results["avx2_alone"] = avx2_alone.in_child(seconds)
    say("avx2, everything limited to it")
    results["threads"] = [
        _thread_row(limits, k, n, m, seconds, say)
        for k, n, m in ((768, 768, 50), (768, 3072, 50), (768, 3072, 250), (768, 3072, 1))
    ]
    results["streaming"] = _streaming(limits, overhead, seconds, say)
    results["vnni_peak_gops_after"] = limits.vnni_peak() / 1e9
    return results


def _machine() -> dict[str, object]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    packages = ("onnxruntime", "torch", "executorch", "torchao", "numpy")
    return {
        "cpu": model,
        "system": platform.platform(),
        "path": rk.isa(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def _activations(rows: int, depth: int) -> NDArray[np.float32]:
    return np.random.default_rng(rows).standard_normal((rows, depth)).astype(np.float32)


def _methods(depth: int, outputs: int, rows: int) -> dict[str, Run]:
    """Ours at every width and granularity, and every peer, on one linear."""
    x = _activations(rows, depth)
    methods: dict[str, Run] = {f"ours {bits}": ours.linear(bits, x, outputs) for bits in WIDTHS}
    methods |= {f"ours {bits} g32": ours.linear(bits, x, outputs, 32) for bits in GROUPED}
    methods |= {f"ours {bits} g32 steps": ours.linear(bits, x, outputs, 32, steps=True) for bits in STEPPED}
    methods["ours 4 g128"] = ours.linear(4, x, outputs, 128)
    methods["ort fp32"] = onnx_peers.fp32(x, outputs)
    methods["ort int8"] = onnx_peers.dynamic_int8(x, outputs)
    for bits in (2, 4, 8):
        for block in (32, 128):
            methods[f"ort {bits} g{block}"] = onnx_peers.nbits(bits, block, x, outputs)
    methods["torch fp32"] = torch_peers.fp32(x, outputs)
    methods["torch int8"] = torch_peers.dynamic_int8(x, outputs)
    methods["xnn int8"] = torch_peers.xnnpack("8da8w", x, outputs)
    methods["xnn 4"] = torch_peers.xnnpack("8da4w", x, outputs)
    methods["xnn 4 g32"] = torch_peers.xnnpack("8da4w-g32", x, outputs)
    return methods


def _overheads(seconds: float) -> dict[str, float]:
    """Microseconds that a call costs before any work: the same methods on a layer of 128 by 16, one row."""
    return {name: timing.least for name, timing in interleaved(_methods(128, 16, 1), seconds).items()}


def _linear_row(
    depth: int, outputs: int, rows: int, seconds: float, overhead: dict[str, float], say: Say
) -> Results:
    timings = interleaved(_methods(depth, outputs, rows), seconds)
    say(f"linear {depth}x{outputs} M={rows}: ours 4 bits {timings['ours 4'].least:.0f} us")
    return {
        "k": depth,
        "n": outputs,
        "m": rows,
        "us": {name: timing.less(overhead[name]).rounds for name, timing in timings.items()},
    }


def _conv_row(shape: tuple[str, int, int, int, int, int, int, int], seconds: float, say: Say) -> Results:
    name, channels, outputs, taps, stride, padding, groups, frames = shape
    x = np.random.default_rng(0).standard_normal((1, channels, frames)).astype(np.float32)
    kernel = (outputs, channels // groups, taps)
    frames_out = (frames + 2 * padding - taps) // stride + 1
    options: dict[str, Any] = {"stride": stride, "padding": padding, "groups": groups}
    methods: dict[str, Run] = {f"ours {bits}": ours.conv1d(bits, x, kernel, **options) for bits in WIDTHS}
    methods["ours 8 calibrated"] = ours.conv1d(8, x, kernel, calibrated=True, **options)
    methods["ort fp32"] = onnx_peers.fp32_conv(x, kernel, frames_out, stride, padding, groups)
    methods["ort int8"] = onnx_peers.qlinear_conv(x, kernel, frames_out, stride, padding, groups)
    timings = interleaved(methods, seconds)
    say(f"conv1d {name}: ours 4 bits {timings['ours 4'].least:.0f} us")
    macs = outputs * channels // groups * taps * frames_out
    return {"name": name, "macs": macs, "us": {key: timing.rounds for key, timing in timings.items()}}


def _avx2_row(depth: int, outputs: int, rows: int, seconds: float, say: Say) -> Results:
    x = _activations(rows, depth)
    methods = {f"ours {bits}": ours.linear(bits, x, outputs, isa="avx2") for bits in WIDTHS}
    methods["ort fp32"] = onnx_peers.fp32(x, outputs)
    timings = interleaved(methods, seconds)
    say(f"avx2 {depth}x{outputs} M={rows}")
    return {
        "k": depth,
        "n": outputs,
        "m": rows,
        "us": {name: timing.rounds for name, timing in timings.items()},
    }


def _thread_row(limits: Limits, depth: int, outputs: int, rows: int, seconds: float, say: Say) -> Results:
    """Wall time, because two threads use twice the CPU time; `limit` tells if a second core was there.

    ONNX Runtime comes after ours: its idle threads spin, and would hold the second core.
    """
    x = _activations(rows, depth)
    methods: dict[str, Run] = {}
    for threads in (1, 2):
        methods |= {
            f"ours {bits} x{threads}": ours.linear(bits, x, outputs, None, threads) for bits in (2, 4, 8)
        }
        methods[f"limit x{threads}"] = functools.partial(limits.busy, threads)
    timings = interleaved(methods, seconds, clock=time.perf_counter)
    peers = {f"ort int8 x{threads}": onnx_peers.dynamic_int8(x, outputs, threads) for threads in (1, 2)}
    timings |= interleaved(peers, seconds / 2, clock=time.perf_counter)
    say(f"threads {depth}x{outputs} M={rows}")
    return {
        "k": depth,
        "n": outputs,
        "m": rows,
        "us": {name: timing.rounds for name, timing in timings.items()},
    }


def _streaming(limits: Limits, overhead: dict[str, float], seconds: float, say: Say) -> Results:
    """One row through 48 layers of 768 by 3072, so that no weight stays in a cache; us per layer."""
    x = _activations(1, 768)
    makers: dict[str, Callable[[int], Run]] = {f"ours {bits}": _maker(bits, x) for bits in WIDTHS}
    makers |= {f"ours {bits} g32": _maker(bits, x, 32) for bits in (2, 4, 8)}
    makers["ort int8"] = lambda copy: onnx_peers.dynamic_int8(x, 3072)
    for bits, block in ((2, 32), (4, 32), (4, 128), (8, 32), (8, 128)):
        makers[f"ort {bits} g{block}"] = lambda copy, bits=bits, block=block: onnx_peers.nbits(
            bits, block, x, 3072
        )  # type: ignore[misc]
    makers["xnn int8"] = lambda copy: torch_peers.xnnpack("8da8w", x, 3072, copy + 1)
    makers["xnn 4"] = lambda copy: torch_peers.xnnpack("8da4w", x, 3072, copy + 1)
    us: dict[str, tuple[float, ...]] = {}
    bandwidth = []
    for name, make in makers.items():
        layers = [make(copy) for copy in range(STREAM_LAYERS)]
        bandwidth.append(limits.read_bandwidth() / 1e9)
        timing = _per_layer(layers, seconds / 4).less(overhead.get(name, 0.0))
        us[name] = timing.rounds
        say(f"streaming {name}: {timing.least:.1f} us")
    return {"us": us, "read_bandwidth_gbs": bandwidth}


def _maker(bits: int, x: NDArray[np.float32], group_size: int | None = None) -> Callable[[int], Run]:
    return lambda copy: ours.linear(bits, x, 3072, group_size)


def _per_layer(layers: list[Run], seconds: float) -> Timing:
    def run() -> None:
        for layer in layers:
            layer()

    timing = interleaved({"all": run}, seconds)["all"]
    return Timing(tuple(value / len(layers) for value in timing.rounds))
