"""Audio of other kinds: made worse the same way each time, and calibration compared draw by draw."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from bitvox.benchmarks.experiments import report_domains
from bitvox.benchmarks.experiments.augment import AUGMENTATIONS, augmented
from bitvox.benchmarks.experiments.domains import CLEAN, DomainDocument, Setting, domains
from bitvox.benchmarks.experiments.results import read_document
from bitvox.benchmarks.experiments.speech import AN4, SPEECHOCEAN, read_split

RATE = 16000


def _speech_like() -> np.ndarray:
    time = np.arange(RATE) / RATE
    tones = sum(np.sin(2 * np.pi * tone * time) for tone in (120, 440, 1000, 5000))
    return (0.05 * tones).astype(np.float32)


@pytest.mark.parametrize("how", list(AUGMENTATIONS))
def test_what_is_made_worse_is_so_the_same_way_each_time(how: str) -> None:
    clean = _speech_like()
    first, again, other = (augmented(clean, RATE, how, name) for name in ("a.wav", "a.wav", "b.wav"))
    np.testing.assert_array_equal(first, again)
    assert (first.dtype, first.shape) == (np.float32, clean.shape)
    assert np.mean(first**2) == pytest.approx(np.mean(clean**2), rel=1e-4)
    assert np.array_equal(first, other) == (how == "telephone")
    assert not np.allclose(first, clean, atol=1e-3)


@pytest.mark.parametrize("decibels", [20, 10, 5])
def test_noise_is_as_loud_as_it_says_and_pink(decibels: int) -> None:
    clean = _speech_like().astype(np.float64)
    mixed = augmented(clean.astype(np.float32), RATE, f"noise {decibels} dB", "a").astype(np.float64)
    gain = (mixed @ clean) / (clean @ clean)
    noise = mixed / gain - clean
    assert 10 * np.log10(np.mean(clean**2) / np.mean(noise**2)) == pytest.approx(decibels, abs=0.3)
    power = np.abs(np.fft.rfft(noise)) ** 2
    assert power[100:200].sum() == pytest.approx(power[1000:2000].sum(), rel=0.4)


def test_a_telephone_passes_its_band_and_a_room_rings_on() -> None:
    power = np.abs(np.fft.rfft(augmented(_speech_like(), RATE, "telephone", "a"))) ** 2
    assert power[1000] > 50 * power[120]
    assert power[1000] > 1000 * power[5000]
    click = np.zeros(RATE, np.float32)
    click[100] = 1.0
    room = augmented(click, RATE, "reverberation", "a") ** 2
    early, late = room[101:901].sum(), room[4101:4901].sum()
    # A quarter of a second is half of the time in which 60 dB are lost.
    assert 10 * np.log10(early / late) == pytest.approx(30, abs=3)
    assert room[100] == pytest.approx(room[101:].sum(), rel=0.35)


def test_a_tiny_run(checkpoint: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITVOX_CACHE", str(tmp_path / "cache"))
    shutil.copytree(speech / AN4, tmp_path / SPEECHOCEAN)
    folders = {AN4: speech, SPEECHOCEAN: tmp_path}
    train, judged = (
        {name: read_split(folder, name, split) for name, folder in folders.items()}
        for split in ("train", "dev")
    )
    kinds = (CLEAN, "noise 5 dB", SPEECHOCEAN)
    setting = Setting(str(checkpoint), train, judged, draws=2, clips=3, kinds=kinds)
    out = tmp_path / "found.json"
    document = domains(out, setting)
    assert read_document(out, DomainDocument) == document
    assert len(document.rows) == 3 + 2 * (3 + 2 + 2)
    assert [one.heard for one in document.summary] == list(kinds)
    full = {row.heard: row for row in document.rows if not row.calibrated}
    assert full[CLEAN].texts == full[SPEECHOCEAN].texts  # the same recordings under another name
    for row in document.rows:
        assert row.divergence > 0 or not row.calibrated
    own = {(row.calibrated, row.heard, row.draw): row.divergence for row in document.rows}
    assert own[CLEAN, "noise 5 dB", 0] != own["noise 5 dB", "noise 5 dB", 0]
    clean, noise, _ = document.summary
    assert clean.divergence_gain.percent == 0
    assert noise.divergence_gain.percent == pytest.approx(
        (noise.clean_divergence.percent or 0) - (noise.matched_divergence.percent or 0), abs=2e-4
    )
    page = report_domains.section(out)
    assert "Calibrating on the kind that is heard lowers the errors" in page
    report_domains.figure(out, tmp_path / "found.svg")
    assert "calibrated on clean" in (tmp_path / "found.svg").read_text()
    assert domains(out, setting).rows == document.rows
