"""One checkpoint and one voice for all tests of this target; what is lowered for them is kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from support import write_tiny_checkpoint


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("executorch-cache")


@pytest.fixture(autouse=True)
def own_cache(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("BITVOX_CACHE", str(shared_cache))
    yield


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="session")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voice")
    generator = np.random.default_rng(0)
    for index in range(5):
        samples = 0.1 * generator.standard_normal(6000 + 500 * index)
        soundfile.write(folder / f"{index}.wav", samples.astype(np.float32), 16000)
    return folder
