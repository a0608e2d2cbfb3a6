"""Allocation and rounding at equal bytes: rows are kept, budgets held, and the comparison is paired."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bitvox.benchmarks.experiments import head_to_head, report_head_to_head
from bitvox.benchmarks.experiments.offsets import at_offsets
from bitvox.benchmarks.experiments.other_tools import TOOLS, half_quadratic, nearest_with_offset
from bitvox.benchmarks.experiments.results import read_document
from bitvox.benchmarks.experiments.speech import draw_clips, read_split, stratified
from bitvox.compiler.frontend.audio import read_clip


@pytest.fixture
def setting(checkpoint: Path, speech: Path) -> head_to_head.Setting:
    train = read_split(speech, "an4", "train")
    draws = tuple(tuple(draw_clips(train, 4, seed)) for seed in (0, 1))
    judged = stratified(read_split(speech, "an4", "dev"), 3, seed=0)
    return head_to_head.Setting(
        str(checkpoint), draws, judged, bits=(4.0,), tools=(TOOLS[0], TOOLS[2], TOOLS[-1])
    )


def test_every_method_at_equal_bytes_once(
    tmp_path: Path, setting: head_to_head.Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_to_head, "_ORDERS", ("descending",))
    monkeypatch.setattr(head_to_head, "_CALIBRATIONS", ("cosine",))
    out = tmp_path / "head.json"
    document = head_to_head.head_to_head(out, setting)
    assert read_document(out, head_to_head.HeadDocument) == document
    full, *rows = document.rows
    assert (full.method, full.divergence) == ("full precision", 0)
    ours, tools = [row for row in rows if row.budget], [row for row in rows if not row.budget]
    assert (len(ours), len(tools)) == (12, 3)
    assert [row.tier for row in ours if row.unreachable] in ([], ["paper"])  # which keeps more in float
    for row in ours:
        if row.unreachable:
            assert "bundle" in row.unreachable and "takes" in row.unreachable
            continue
        assert 0.85 * row.budget < row.bytes <= row.budget  # an unpack table more or less is much here
        assert row.divergence > 0
    by_name = {(row.method, row.rounding, row.effort): row for row in ours if not row.draw}
    uniform = by_name["uniform", "nearest", None]
    assert uniform.bytes == uniform.budget
    assert by_name["auto", "compensated", "normal"].divergence < uniform.divergence
    dynamic, blocks, style = tools
    assert dynamic.bytes > blocks.bytes > style.bytes > 0
    assert 0 < dynamic.divergence < blocks.divergence < style.divergence
    (one,) = document.summary
    assert one.draws == 2
    assert one.best == "descending, cosine"

    seen: list[str] = []
    monkeypatch.setattr(head_to_head.Judge, "row", lambda self, form, key, *words: seen.append(key))
    again = head_to_head.head_to_head(out, setting)
    assert seen == []
    assert again.rows == document.rows

    page = report_head_to_head.section(out)
    assert page.count("| 4 bits |") == 12  # two methods have two draws each, on one line
    assert "Full precision's error rate down to 4 bits: " in page


def _row(texts: list[str], **fields: object) -> head_to_head.HeadRow:
    rate = {"percent": 0.0, "low": 0.0, "high": 0.0}
    words = {"rate": rate, "substitutions": 0, "deletions": 0, "insertions": 0, "length": 1}
    return head_to_head.HeadRow.model_validate(
        {"key": "k", "commit": "c", "words": words, "difference": rate, "divergence": 0.0}
        | {"bits": 3.0, "bytes": 100, "tier": "default", "rounding": "nearest", "texts": tuple(texts)}
        | fields
    )


def test_a_comparison_takes_the_best_variant_over_all_draws(setting: head_to_head.Setting) -> None:
    right = [one.text or "" for one in setting.judged.utterances]
    wrong = ["", *right[1:]]
    worse = ["", "", *right[2:]]
    mine = {"method": "auto", "rounding": "compensated", "effort": "normal"}
    rows = [
        _row(right, method="full precision", bits=None),
        *(_row(right if draw else wrong, **mine, draw=draw) for draw in (0, 1)),
        _row(right, **mine, bits=4.0, bytes=130),
        *(_row(worse, method="myqasr", order="ascending", calibration="cosine", draw=d) for d in (0, 1)),
        _row(right, method="myqasr", order="descending", calibration="cosine", bytes=200),
    ]
    (one,) = head_to_head.compare(rows, setting.judged)
    assert (one.best, one.draws) == ("ascending, cosine", 2)  # the other has but one draw
    assert one.share == 0.25
    assert one.bytes_share == 1.0
    assert one.half.percent is not None and one.half.percent < 0


def test_recordings_at_offsets_say_the_same_a_little_later(
    tmp_path: Path, setting: head_to_head.Setting
) -> None:
    found = at_offsets(setting.judged, 4, 320, 16_000, tmp_path).utterances
    for place, utterance in enumerate(setting.judged.utterances):
        copies = found[4 * place : 4 * place + 4]
        samples = read_clip(utterance.path, 16_000).samples
        assert {(one.speaker, one.text) for one in copies} == {(utterance.speaker, utterance.text)}
        for number, one in enumerate(copies):
            later = read_clip(one.path, 16_000).samples
            assert later.size == samples.size + 80 * number
            assert (later[80 * number :] == samples).all()
            assert (later[: 80 * number] == samples[80 * number : 0 : -1]).all()
    assert len({one.path.name for one in found}) == 4 * len(setting.judged.utterances)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_half_quadratic_offsets_lose_less_by_the_norm_that_they_are_for(bits: int) -> None:
    rows = torch.distributions.StudentT(3.0).rsample((64, 64))
    plain, found = (how(rows, bits) - rows for how in (nearest_with_offset, half_quadratic))
    assert found.abs().mean() < plain.abs().mean()
    assert all(len(row.unique()) <= 2**bits for row in half_quadratic(rows, bits))
