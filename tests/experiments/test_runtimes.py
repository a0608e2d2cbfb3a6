"""Three runtimes at the same budgets, and with one plan: the same integers must give the same texts."""

from __future__ import annotations

from pathlib import Path

import pytest
from operator_libraries import unbuilt_executorch, unbuilt_onnxruntime

pytest.importorskip("executorch", reason="the extra 'executorch' is not installed")
if missing := unbuilt_onnxruntime() or unbuilt_executorch():
    pytest.skip(missing, allow_module_level=True)

from bitvox.benchmarks.experiments import report_runtimes, runtimes
from bitvox.benchmarks.experiments.speech import draw_clips, read_split


def test_runtimes_share_budgets_and_write_the_same_from_the_same_integers(
    tmp_path: Path, checkpoint: Path, speech: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibration = tuple(draw_clips(read_split(speech, "an4", "train"), 4, seed=0))
    setting = runtimes.Setting(
        str(checkpoint), calibration, read_split(speech, "an4", "test"), budgets=(200_000,), compared=4
    )
    out = tmp_path / "runtimes.json"
    document = runtimes.runtimes(out, setting)
    assert [row.way for row in document.rows] == [str(way) for way in runtimes.WAYS]
    assert all(0 < row.bytes <= row.budget for row in document.rows)
    assert [pair.same_integers for pair in document.summary] == [False, False, True]
    assert document.summary[-1].disagreements == ()
    section = report_runtimes.section(out)
    assert "3 of 3 bundles are at or under their budget" in section and "4 of 4" in section

    def again(*_: object) -> None:
        raise AssertionError("a finished cell was compiled again")

    monkeypatch.setattr(runtimes, "sweep", again)
    assert runtimes.runtimes(out, setting).rows == document.rows
