"""Ablations: clips are drawn by number, variants are paired draw by draw, and a stopped run goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bitvox.benchmarks import metrics
from bitvox.benchmarks.experiments import ablations, clips, report_variants, variants
from bitvox.benchmarks.experiments.draws import PERCENT, mean_rate
from bitvox.benchmarks.experiments.experiment import Options
from bitvox.benchmarks.experiments.results import Rate, read_document
from bitvox.benchmarks.experiments.speech import read_split
from bitvox.benchmarks.experiments.variants import Draw, Variant, VariantDocument, measure_variants


def test_one_draw_has_the_interval_of_an_error_rate() -> None:
    said = ["a b c", "d e", "f g h i", "j"]
    speakers = ["x", "x", "y", "z"]
    counts = metrics.count_words(said, ["a b", "d e", "f q h", "k j"])
    expected = Rate.of(metrics.error_rate(counts, speakers).rate)
    assert mean_rate([counts.errors], counts.length, speakers, PERCENT) == expected
    twice = mean_rate([counts.errors, counts.errors], counts.length, speakers, PERCENT)
    assert twice == expected


def test_draws_that_differ_widen_the_interval_and_a_shift_moves_it() -> None:
    generator = np.random.default_rng(0)
    speakers = [str(index % 8) for index in range(80)]
    errors = generator.poisson(2.0, 80).astype(float)
    same = mean_rate([errors] * 5, np.full(80, 10), speakers, PERCENT)
    spread = mean_rate(
        [errors + shift for shift in (-1, -0.5, 0, 0.5, 1)], np.full(80, 10), speakers, PERCENT
    )
    assert same.percent == spread.percent is not None
    assert spread.high - spread.low > 1.2 * (same.high - same.low)  # type: ignore[operator]
    assert mean_rate([errors], np.zeros(80), speakers, PERCENT).percent is None


def test_a_smaller_draw_is_a_part_of_the_larger_one(speech: Path) -> None:
    train = read_split(speech, "an4", "train").utterances
    eight, three = (Draw(3, count).of(train, 16000) for count in (8, 3))
    assert [clip.digest for clip in eight[:3]] == [clip.digest for clip in three]
    assert [clip.path for clip in Draw(4, 3).of(train, 16000)] != [clip.path for clip in three]
    short = Draw(3, 3, seconds=0.1).of(train, 16000)
    for cut, whole in zip(short, three, strict=True):
        assert (cut.samples.size, cut.seconds) == (1600, 0.1)
        np.testing.assert_array_equal(cut.samples, whole.samples[:1600])
        assert cut.digest != whole.digest


@pytest.fixture
def options(checkpoint: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    monkeypatch.setenv("BITVOX_SPEECH", str(speech))
    monkeypatch.setenv("BITVOX_CACHE", str(tmp_path / "cache"))
    return Options(tmp_path / "found.json", "dev", str(checkpoint), limit=4)


def _few(found: tuple[Variant, ...], names: set[tuple[str, str]]) -> tuple[Variant, ...]:
    """Variants of those studies and names, on draws that the tiny recordings have clips for."""
    return tuple(
        replace(one, draw=replace(one.draw, count=min(one.draw.count, 4)))
        for one in found
        if (one.study, one.name) in names and one.draw.number < 2
    )


def test_a_tiny_ablation(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = _few(
        ablations.variants(options.model),
        {
            ("one choice changed", "sensitivity: frobenius"),
            ("one choice changed", "calibration: hessian"),
            ("one choice changed", "unit: q, k and v apart"),
            ("clips", "1"),
            ("clips", "32"),
        },
    )
    document = measure_variants("ablations", chosen, options)
    assert read_document(options.out, VariantDocument) == document
    assert len(document.rows) == len(chosen) == 9
    for row in document.rows:
        assert row.bytes <= (row.budget or 0)
        assert row.divergence > 0
        assert row.compile_seconds > 0
        assert (row.clips, row.activations) == (
            1 if row.name == "1" else 4,
            "static" if row.tier == "paper" else "dynamic",
        )
    by_name = {(one.study, one.tier, one.name): one for one in document.summary}
    one, all_ = by_name["clips", "paper", "1"], by_name["clips", "paper", "32"]
    assert one.draws == all_.draws == 2
    assert all_.divergence_against.percent == 0
    assert one.divergence_against.percent == pytest.approx(
        (one.divergence.percent or 0) - (all_.divergence.percent or 0), abs=2e-4
    )
    page = report_variants.section(options.out)
    assert "### clips, tier paper, 3.5 bits" in page
    assert "Beside `32`, of 1 others" in page

    monkeypatch.setattr(variants._Runner, "row", lambda *words: pytest.fail("measured again"))
    assert measure_variants("ablations", chosen, options).rows == document.rows


def test_a_tiny_run_of_the_default_method_on_fewer_clips(options: Options, tmp_path: Path) -> None:
    chosen = _few(clips.variants(options.model), {("rounding", "32"), ("rounding", "1")})
    chosen = tuple(one for one in chosen if one.draw.number == 0)
    document = measure_variants("clips", chosen, options)
    whole, one = document.rows
    assert whole.widths == one.widths
    assert (whole.method, whole.clips, one.clips) == ("auto", 4, 1)
    assert whole.divergence != one.divergence
    report_variants.figure(options.out, tmp_path / "found.svg")
    assert "divergence" in (tmp_path / "found.svg").read_text()


def test_every_study_has_one_reference_and_enough_draws() -> None:
    found = (*ablations.variants("m"), *clips.variants("m"))
    studies = {(one.study, one.request.tier, one.bits) for one in found}
    for study in studies:
        group = [one for one in found if (one.study, one.request.tier, one.bits) == study]
        assert len({one.name for one in group if one.reference}) == 1
        assert len({(one.name, one.draw.number) for one in group}) == len(group)
        drawn = {one.name: {other.draw.number for other in group if other.name == one.name} for one in group}
        assert len({len(numbers) for numbers in drawn.values()}) == 1
    assert sum(one.name.startswith("order: shuffled") for one in found) == 5 * 2
