"""Fixtures around the bundle of tones."""

from __future__ import annotations

from pathlib import Path

import pytest
from tone_bundle import write_tone_bundle


@pytest.fixture
def bundle_folder(tmp_path: Path) -> Path:
    return write_tone_bundle(tmp_path / "model")
