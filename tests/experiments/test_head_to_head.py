"""Allocation and rounding at equal bytes: rows are kept, budgets held, and the comparison is paired."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bitvox.benchmarks.experiments import head_to_head, report_head_to_head
from bitvox.benchmarks.experiments.results import read_document
from bitvox.benchmarks.experiments.speech import draw_clips, read_split, stratified


@pytest.fixture
def setting(checkpoint: Path, speech: Path) -> head_to_head.Setting:
    calibration = tuple(draw_clips(read_split(speech, "an4", "train"), 4, seed=0))
    judged = stratified(read_split(speech, "an4", "dev"), 3, seed=0)
    return head_to_head.Setting(str(checkpoint), calibration, judged, bits=(4.0, 3.5))


def test_every_method_at_equal_bytes_once(
    tmp_path: Path, setting: head_to_head.Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_to_head, "_ORDERS", ("descending",))
    out = tmp_path / "head.json"
    document = head_to_head.head_to_head(out, replace(setting, bits=(4.0,)))
    assert read_document(out, head_to_head.HeadDocument) == document
    full, *rows = document.rows
    assert (full.method, full.divergence) == ("full precision", 0)
    assert len(rows) == 9
    for row in rows:
        assert row.budget is not None
        assert 0.85 * row.budget < row.bytes <= row.budget  # an unpack table more or less is much here
        assert row.divergence > 0
    by_name = {(row.method, row.rounding, row.effort): row for row in rows}
    uniform = by_name["uniform", "nearest", None]
    assert uniform.bytes == uniform.budget
    assert by_name["auto", "compensated", "normal"].divergence < uniform.divergence
    (one,) = document.summary
    assert one.best in ("descending, min-max", "descending, cosine")

    seen: list[str] = []
    monkeypatch.setattr(head_to_head.Judge, "row", lambda self, form, key, *words: seen.append(key))
    again = head_to_head.head_to_head(out, replace(setting, bits=(4.0,)))
    assert seen == []
    assert again.rows == document.rows

    page = report_head_to_head.section(out)
    assert page.count("| 4 bits |") == 10
    assert "Of 1 budgets `auto` makes fewer errors" in page
