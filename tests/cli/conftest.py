"""The bundle of tones, which lives beside the tests of bundles, and recordings of its tones."""

import sys
from pathlib import Path

import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).parents[1] / "bundle"))

from tone_bundle import play, write_tone_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_tone_bundle(tmp_path / "model")


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    folder = tmp_path / "recordings"
    (folder / "ü").mkdir(parents=True)
    soundfile.write(folder / "a.wav", play("BAD"), 16000)
    soundfile.write(folder / "ü" / "b.flac", play("CAB ACE"), 16000)
    return folder
