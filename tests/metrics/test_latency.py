"""Measurements are whole and consistent; how fast anything is, is no test's business."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from tone_bundle import write_tone_bundle, write_tone_model

from bitvox.benchmarks import latency
from bitvox.benchmarks.latency import Spread, bench
from bitvox.commands.judging import _bench_text
from bitvox.errors import InputError
from bitvox.exporters.bundle import Bundle, folder_bytes
from bitvox.memory import forget_peak, memory
from bitvox.runtime_kernels import isa


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.open(write_tone_bundle(tmp_path / "model"))


def test_a_bundle_beside_full_precision(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "FRESH_PROCESSES", 2)
    write_tone_model(tmp_path / "full")
    steps: list[tuple[int, int]] = []
    report = bench(
        bundle, tmp_path / "full", seconds=2, progress=lambda stage, done, total: steps.append((done, total))
    )
    assert report.full_precision is not None
    assert report.time_ratio is not None
    for measured, folder in ((report.measured, bundle.folder), (report.full_precision, tmp_path / "full")):
        assert measured.bytes == folder_bytes(folder)
        assert measured.load.count == 2
        assert measured.steady.count == latency.ROUNDS
        assert 0 < measured.steady.low <= measured.steady.median <= measured.steady.high
        assert measured.real_time_factor == measured.steady.median / 2
        assert measured.peak_memory is not None
        assert -20e6 < measured.peak_memory < 100e6
    assert report.isa is None
    assert report.empty_runtime is not None
    assert report.empty_runtime > 10e6
    assert {"bitvox", "onnxruntime", "numpy"} <= report.versions.keys()
    assert json.loads(report.to_json())["num_threads"] == 1
    assert [done for done, _ in steps] == list(range(len(steps)))
    assert steps[-1][0] == steps[-1][1]


def test_a_bundle_on_packed_kernels_says_which_path_they_take(bundle: Bundle) -> None:
    plan = bundle.manifest.plan | {"kernels": "packed"}
    packed = dataclasses.replace(bundle, manifest=bundle.manifest.model_copy(update={"plan": plan}))
    report = bench(packed, seconds=1)
    assert report.isa == isa()
    assert f"bitvox's kernels by {isa()}" in _bench_text(report)


def test_what_cannot_be_measured_is_refused(bundle: Bundle) -> None:
    for options, complaint in (
        ({"seconds": 0.001}, "needs at least 0.01"),
        ({"num_threads": 0}, "at least 1"),
    ):
        with pytest.raises(InputError, match=complaint):
            bench(bundle, **options)
    data = bundle.folder / "model.onnx.data"
    data.write_bytes(b"\0" * data.stat().st_size)
    with pytest.raises(InputError, match="damaged"):
        bench(bundle)


def test_models_take_turns() -> None:
    order: list[str] = []

    class Fake:
        def __init__(self, name: str) -> None:
            self.name = name

        graphs = ("model",)

        def call(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            order.append(self.name)
            return {"logits": inputs["samples"]}

    times = latency.interleave([Fake("a"), Fake("b")], np.zeros(1, dtype=np.float32), tokens=1)
    assert times.shape == (latency.ROUNDS, 2)
    assert order[:4] == ["a", "b", "b", "a"]


def test_spread_is_median_and_quartiles() -> None:
    assert Spread.of([4, 1, 3, 2, 5]) == Spread(3, 2, 4, 5)


def test_memory_is_this_process_in_bytes() -> None:
    before = memory("VmRSS")
    block = np.ones(10_000_000)
    after = memory("VmRSS")
    assert before is not None
    assert after is not None
    assert after - before == pytest.approx(block.nbytes, rel=0.1)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system tells no peak")
def test_a_peak_that_is_forgotten_does_not_count() -> None:
    block = np.ones(20_000_000)
    size = block.nbytes
    del block
    before = memory("VmHWM")
    forget_peak()
    after = memory("VmHWM")
    assert before is not None
    assert after is not None
    assert after <= before - 0.9 * size
