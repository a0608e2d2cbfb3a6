"""Calibrated on one language, judged on another: every pair once, and what is compared."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bitvox.benchmarks.experiments import languages, report_languages
from bitvox.benchmarks.experiments.experiment import Options
from bitvox.benchmarks.experiments.results import read_document
from bitvox.errors import InputError
from bitvox.progress import no_progress
from tiny_families import LABELS, TINY

CODES = ("de", "ja", "pl")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three languages of noise: two speakers to calibrate with, two to judge on."""
    parent = tmp_path_factory.mktemp("languages")
    generator = np.random.default_rng(0)
    for code in CODES:
        folder = parent / code
        folder.mkdir()
        with (folder / "manifest.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(("path", "speaker", "split", "label"))
            for split in ("dev", "test"):
                for number in range(4):
                    path = f"{split}-{number}.wav"
                    soundfile.write(folder / path, 0.1 * generator.standard_normal(4000), 16000)
                    table.writerow((path, f"{split}-{number % 2}", split, LABELS[number]))
    return parent


@pytest.fixture(scope="module")
def spoken(data: Path) -> dict[str, languages.Language]:
    return {code: languages.read_language(data / code, judged=4) for code in CODES}


def test_every_pair_of_languages_once(
    tmp_path: Path, spoken: dict[str, languages.Language], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = TINY["wav2vec2-keywords"].write(tmp_path / "tiny")
    setting = languages.Setting(str(checkpoint), spoken, bits=(4.0,))
    out = tmp_path / "languages.json"
    document = languages.languages(out, setting)
    assert read_document(out, languages.LanguagesDocument) == document
    assert len(document.rows) == 1 + 2 * (1 + len(CODES))
    assert {row.calibrated_on for row in document.rows} == {None, *CODES}
    assert [matrix.method for matrix in document.summary] == ["auto", "myqasr"]
    for matrix in document.summary:
        assert list(matrix.errors) == list(CODES)
        assert all(list(row) == [*CODES, "none", "full precision"] for row in matrix.errors.values())
        rates = {
            code: {name: one.rate.percent for name, one in row.items()} for code, row in matrix.errors.items()
        }
        own = np.mean([rates[code][code] for code in CODES])
        foreign = np.mean([rates[code][name] for code in CODES for name in CODES if name != code])
        assert matrix.own.percent == pytest.approx(own, abs=1e-3)
        assert matrix.foreign.percent == pytest.approx(foreign, abs=1e-3)
        assert matrix.difference.percent == pytest.approx(own - foreign, abs=1e-3)
    rows = {(row.method, row.calibrated_on): row for row in document.rows}
    lost = np.array([rows["auto", code].divergences for code in CODES]).reshape(3, 3, 4).mean(axis=2) * 1000
    found = document.summary[0]
    assert found.own_divergence.percent == pytest.approx(np.trace(lost) / 3, rel=1e-3)
    assert found.foreign_divergence.percent == pytest.approx((lost.sum() - np.trace(lost)) / 6, rel=1e-3)
    difference = np.trace(lost) / 3 - (lost.sum() - np.trace(lost)) / 6
    assert found.divergence_difference.percent == pytest.approx(difference, rel=1e-3)

    monkeypatch.setattr(languages, "_row", lambda *_: pytest.fail("measured again"))
    assert languages.languages(out, setting).rows == document.rows

    page = report_languages.section(out)
    assert page.count("| judged on | de | ja | pl | none | full precision |") == 2
    report_languages.figure(out, tmp_path / "found.svg")
    assert "other languages" in (tmp_path / "found.svg").read_text()
    assert "nobody speaks here" not in page  # which is said of the recipe's own voices alone


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITVOX_LANGUAGES", str(tmp_path))
    with pytest.raises(InputError, match="0 languages; give two or more folders"):
        languages.measure(Options(tmp_path / "out.json"), no_progress)
