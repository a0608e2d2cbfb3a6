"""A tiny checkpoint, and recordings of noise laid out as the real ones are."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bitvox.benchmarks import latency
from support import write_tiny_checkpoint

SPEAKERS, CLIPS = ("ann", "bob"), 4


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speech")
    generator = np.random.default_rng(0)
    rows = []
    for split in ("train", "dev", "test"):
        for speaker in SPEAKERS:
            for number in range(CLIPS):
                path = f"wav/{split}-{speaker}/{split}-{speaker}-{number}.wav"
                file = folder / "an4" / path
                file.parent.mkdir(parents=True, exist_ok=True)
                samples = 0.1 * generator.standard_normal(4000 + 300 * number)
                soundfile.write(file, samples.astype(np.float32), 16000)
                rows.append(
                    {"path": path, "speaker": f"{split}-{speaker}", "split": split, "text": "ab ca bb"}
                )
    with (folder / "an4" / "manifest.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return folder


@pytest.fixture
def quick_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "FRESH_PROCESSES", 1)
    monkeypatch.setattr(latency, "ROUNDS", 3)
