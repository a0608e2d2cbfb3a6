"""Committed results are replaced by the whole experiment only, and say what they were measured at."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from bitvox.benchmarks.experiments import full_size, real_speech, voices
from bitvox.benchmarks.experiments.results import Cell, Provenance
from bitvox.benchmarks.experiments.tables import origin


@pytest.mark.parametrize(
    ("experiment", "trial"),
    [
        (voices, "--limit=2"),
        (real_speech, "--limit=2"),
        (real_speech, "--model=x"),
        (full_size, "--seconds=1"),
    ],
)
def test_a_trial_names_a_file_of_its_own(
    experiment: ModuleType,
    trial: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = experiment.__name__.rpartition(".")[2]
    asked: list[Path] = []
    monkeypatch.setattr(experiment, name, lambda out, *words: asked.append(out))
    for helper in ("speech_folder", "read_split", "default_setting"):
        monkeypatch.setattr(experiment, helper, lambda *words: None, raising=False)
    default = experiment.DEFAULT_OUT
    for words, code in (([], 0), ([trial], 2), ([trial, f"--out={tmp_path / 'trial.json'}"], 0)):
        monkeypatch.setattr(sys, "argv", [name, *words])
        with pytest.raises(SystemExit) as caught:
            experiment.main()
        assert caught.value.code == code
    assert asked == [default, tmp_path / "trial.json"]
    assert f"replace {default.name}" in capsys.readouterr().err


def test_every_commit_of_the_rows_is_named() -> None:
    found = Provenance(
        command="c",
        commit="last",
        versions={},
        machine={"cpu": "x", "cores": "2"},
        model="m",
        fingerprint="f",
        data={},
    )
    rows = [Cell(key="1", commit="aaa"), Cell(key="2", commit="bbb"), Cell(key="3", commit="aaa")]
    assert "Commits aaa and bbb;" in origin(found, rows)
    assert "Commit aaa;" in origin(found, rows[:1])
