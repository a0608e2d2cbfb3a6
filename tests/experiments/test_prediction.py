"""What a score says beside what was measured, share group by share group."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from bitvox.benchmarks.dataset import Dataset
from bitvox.benchmarks.experiments import report_prediction
from bitvox.benchmarks.experiments.prediction import QUANTISERS, prediction, rank_correlation
from bitvox.benchmarks.experiments.speech import draw_clips, read_split


def test_rank_correlation_is_spearmans_with_an_interval_around_it() -> None:
    generator = np.random.default_rng(0)
    one = generator.standard_normal(40)
    other = one + generator.standard_normal(40)
    found, low, high = rank_correlation(one, other)
    assert found == pytest.approx(spearmanr(one, other).statistic, abs=1e-4)
    assert 0 < low < found < high < 1
    assert rank_correlation(one, -one)[0] == -1
    nothing, low, high = rank_correlation(one, generator.standard_normal(40))
    assert low < 0 < high
    assert abs(nothing) < 0.4


def test_a_tiny_run(checkpoint: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITVOX_CACHE", str(tmp_path / "cache"))
    train = read_split(speech, "an4", "train")
    clips = Dataset(train.origin, tuple(draw_clips(train, 4, seed=0)))
    out = tmp_path / "found.json"
    document = prediction(out, str(checkpoint), clips, read_split(speech, "an4", "dev"))
    assert [row.quantiser for row in document.rows] == [str(one) for one in QUANTISERS]
    for row in document.rows:
        assert all(len(values) == len(row.groups) == len(row.measured) for values in row.predicted.values())
        assert min(row.measured) >= 0
        assert max(row.measured) > 0
    _, nearest, _ = document.rows
    # On the tiny model the divergence on some noise is nearly that on other noise.
    of_cost = next(
        one
        for one in document.summary
        if (one.quantiser, one.prediction) == (nearest.quantiser, "cost divergence")
    )
    assert of_cost.correlation > 0.7
    page = report_prediction.section(out)
    assert "| median |" in page
    assert "the divergence (" in page
    report_prediction.figure(out, tmp_path / "found.svg")
    assert prediction(out, str(checkpoint), clips, read_split(speech, "an4", "dev")).rows == document.rows
