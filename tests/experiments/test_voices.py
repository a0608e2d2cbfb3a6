"""Bundles per voice: under budget, as the command line makes them, and never measured twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bitvox.benchmarks.experiments import report_voices, voices
from bitvox.benchmarks.experiments.results import read_document
from bitvox.benchmarks.experiments.speech import read_split
from bitvox.benchmarks.experiments.voice_rows import VoicesDocument
from bitvox.cli import run
from bitvox.request import CompileRequest, SweepReport


@pytest.fixture
def setting(checkpoint: Path, speech: Path) -> voices.Setting:
    return voices.Setting(str(checkpoint), read_split(speech, "an4", "test"), averages=(3.0, 6.5))


def test_stops_and_goes_on(
    tmp_path: Path,
    setting: voices.Setting,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "voices.json"
    asked: list[list[int]] = []
    sweep, measure = voices.sweep, voices._measure

    def recording(request: CompileRequest, budgets: Sequence[int]) -> SweepReport:
        asked.append(list(budgets))
        return sweep(request, budgets)

    def stopping(*words: Any) -> Any:
        if out.exists() and read_document(out, VoicesDocument).rows:
            raise KeyboardInterrupt
        return measure(*words)

    monkeypatch.setattr(voices, "sweep", recording)
    monkeypatch.setattr(voices, "_measure", stopping)
    with pytest.raises(KeyboardInterrupt):
        voices.voices(out, setting)
    first = read_document(out, VoicesDocument).rows
    assert len(first) == 1

    monkeypatch.setattr(voices, "_measure", measure)
    document = voices.voices(out, setting)
    assert [len(budgets) for budgets in asked] == [2, 1, 2]
    assert document.rows[0] == first[0]
    assert read_document(out, VoicesDocument) == document
    for row in document.rows:
        assert row.under_budget and row.bytes <= row.budget
        assert row.calibrated_on == 3 and len(row.judged_on) == 1
    assert [row.speakers for row in document.summary] == [2, 2]
    assert document.summary[0].words.length == 6

    asked.clear()
    assert voices.voices(out, setting).rows == document.rows
    assert asked == []

    page = report_voices.section(out)
    assert "4 of 4 bundles are at or under their budget" in page
    assert "| test-bob | 3 | 1 | 3 |" in page

    row = document.rows[0]
    audio = setting.recordings.utterances[0].path.parent
    words = ["compile", setting.model, "--audio", str(audio), "--budget", str(row.budget)]
    assert "--method myqasr" in row.compile_command
    words += ["--method", "myqasr"]
    assert run([*words, "--out", str(tmp_path / "bundle"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == row.bytes
