"""The demo's second table: one voice and one budget in each of the three runtimes, taking turns."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bitvox.benchmarks.dataset import Dataset
from bitvox.benchmarks.evaluate import evaluate
from bitvox.benchmarks.latency import interleave
from bitvox.benchmarks.probe import noise
from bitvox.compile import compile_bundle
from bitvox.errors import InputError
from bitvox.exporters.bundle import Bundle
from bitvox.exporters.runner import open_runner
from bitvox.progress import Progress, logger
from bitvox.request import CompileReport, CompileRequest, Kernels, Target

HEADER = ("runtime", "bytes", "bits", "WER %", "ms per s")

WAYS: dict[str, tuple[Target, Kernels]] = {
    "onnx": ("onnx", "stock"),
    "onnx, packed kernels": ("onnx", "packed"),
    "executorch": ("executorch", "packed"),
}


@dataclass(frozen=True)
class RuntimeRow:
    """One bundle; `steady` is milliseconds per second of audio."""

    runtime: str
    bytes: int
    bits: float
    word_error_rate: float
    steady: float


def run_runtimes(
    request: CompileRequest, compiled: CompileReport, dataset: Dataset, seconds: float, progress: Progress
) -> list[RuntimeRow]:
    """Compile what `compiled` is for the other runtimes too; one that is not here is named and left out."""
    reports = {"onnx": compiled}
    for name, (target, kernels) in WAYS.items():
        if name in reports:
            continue
        out = Path(f"{compiled.out}-{target}-{kernels}")
        try:
            one = dataclasses.replace(
                request, budget=compiled.budget, out=out, target=target, kernels=kernels
            )
            reports[name] = compile_bundle(one, progress)
        except InputError as error:
            logger.warning("left out of the demo: %s: %s", name, error)
    bundles = [Bundle.open(report.out) for report in reports.values()]
    steady = _steady(bundles, seconds)
    return [
        RuntimeRow(
            runtime=name,
            bytes=report.bytes,
            bits=report.average_bits,
            word_error_rate=_word_error_rate(bundle, dataset, progress),
            steady=milliseconds,
        )
        for (name, report), bundle, milliseconds in zip(reports.items(), bundles, steady, strict=True)
    ]


def cells(row: RuntimeRow) -> tuple[str, ...]:
    """A row of the table, under `HEADER`."""
    return (
        row.runtime,
        str(row.bytes),
        f"{row.bits:.2f}",
        f"{row.word_error_rate:.1f}",
        f"{row.steady:.1f}",
    )


def _steady(bundles: Sequence[Bundle], seconds: float) -> list[float]:
    """Medians of interleaved runs on one thread, in milliseconds per second of audio."""
    sessions = [open_runner(bundle).session for bundle in bundles]
    processor = bundles[0].manifest.processor
    samples = noise(processor.input_shape(round(seconds * processor.sampling_rate)))
    times = interleave(sessions, samples, tokens=1)
    return [float(1000 * median / seconds) for median in np.median(times, axis=0)]


def _word_error_rate(bundle: Bundle, dataset: Dataset, progress: Progress) -> float:
    words = evaluate(bundle, dataset, progress=progress).scores.words
    assert words is not None
    return words.rate.percent or 0.0
