"""The whole product on a model of a few thousand weights, through the command line. Runs first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from support import run, write_tiny_checkpoint

pytestmark = pytest.mark.tiny


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voice")
    generator = np.random.default_rng(0)
    for index in range(5):
        samples = 0.1 * generator.standard_normal(6000 + 500 * index)
        soundfile.write(folder / f"{index}.wav", samples.astype(np.float32), 16000)
    return folder


def test_the_whole_product(tmp_path: Path, voice: Path) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint")
    bundle = tmp_path / "bundle"

    largest = run("compile", checkpoint, "--audio", voice, "--budget", "1MB", "--out", bundle)
    budget = largest["bytes"] - 2000
    compiled = run("compile", checkpoint, "--audio", voice, "--budget", budget, "--out", bundle)
    on_disk = sum(path.stat().st_size for path in bundle.iterdir())
    assert compiled["bytes"] == on_disk <= budget
    assert compiled["average_bits"] < largest["average_bits"] == 8
    assert compiled["parity"] < 1e-3
    integer = {"MatMulIntegerToFloat", "QLinearConv"}
    assert sum(kernel in integer for kernel in compiled["kernels"].values()) == len(compiled["kernels"]) - 1

    assert run("verify", bundle)["findings"] == []
    ledger = run("inspect", bundle)
    assert ledger["total"] == on_disk
    assert {site["bits"] for site in ledger["sites"]} >= {compiled["plan"]["sites"][1]["bits"]}
    heard = run("transcribe", bundle, voice)
    assert len(heard["transcripts"]) == 5
    judged = run("eval", bundle, "--data", voice, "--checkpoint", checkpoint)
    assert (judged["clips"], judged["calibrated_on"]) == (5, 4)
    timed = run("bench", bundle, "--seconds", "0.5", "--checkpoint", checkpoint)
    assert timed["time_ratio"]["median"] > 0
