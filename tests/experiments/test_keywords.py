"""Keywords of each speaker: who calibrates and who is judged never mix, rows are kept, tests are paired."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from bitvox.benchmarks.dataset import Dataset, Utterance
from bitvox.benchmarks.experiments import keywords, report_keywords
from bitvox.benchmarks.experiments.keyword_rows import KeywordsDocument
from bitvox.benchmarks.experiments.results import read_document
from tiny_families import LABELS, TINY

SPEAKERS, TAKES, DRAWS = ("ann", "bob", "cem", "dan"), 4, 2


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("commands")
    generator = np.random.default_rng(0)
    spoken = []
    for speaker in SPEAKERS:
        for label in LABELS:
            for take in range(TAKES):
                path = folder / label / f"{speaker}_{take}.wav"
                path.parent.mkdir(exist_ok=True)
                soundfile.write(path, 0.1 * generator.standard_normal(4000), 16000)
                spoken.append(Utterance(path, speaker, label))
    return Dataset(folder, tuple(spoken))


@pytest.fixture(scope="module")
def setting(strangers: Dataset, tmp_path_factory: pytest.TempPathFactory) -> keywords.Setting:
    checkpoint = TINY["conformer-keywords"].write(tmp_path_factory.mktemp("model") / "tiny")
    two = tuple(one for one in strangers.utterances if one.speaker in ("ann", "bob"))
    return keywords.Setting(
        {str(checkpoint): Dataset(strangers.origin, two)},
        {str(checkpoint): [one for one in strangers.utterances if one.speaker == "cem"][:3]},
        arms=(keywords.Arm(2, (3.0,), (0,)),),
        takes=TAKES - 2,
    )


def test_no_clip_calibrates_and_is_judged_on(strangers: Dataset) -> None:
    spoken = [one for one in strangers.utterances if one.speaker == "ann"]
    drawn = [keywords.draw_speaker(spoken, draw, DRAWS) for draw in range(DRAWS)]
    judged = [one.path for side in drawn for one in side.judged]
    assert len(judged) == len(set(judged)) == DRAWS * len(LABELS)
    for side in drawn:
        assert [one.text for one in side.judged] == sorted(LABELS)
        calibration = {one.path for one in side.calibration}
        assert len(calibration) == (TAKES - DRAWS) * len(LABELS)
        assert not calibration & set(judged)
    assert drawn == [keywords.draw_speaker(spoken, draw, DRAWS) for draw in range(DRAWS)]


def test_sources_give_equal_clips_of_whom_they_say(strangers: Dataset) -> None:
    by_name = {name: [one for one in strangers.utterances if one.speaker == name] for name in SPEAKERS}
    for draw in range(DRAWS):
        drawn = {name: keywords.draw_speaker(spoken, draw, DRAWS) for name, spoken in by_name.items()}
        for name in SPEAKERS:
            own, other, mix = (
                keywords.calibration_clips(drawn, name, source, draw, 4) for source in ("own", "other", "mix")
            )
            assert len(set(own)) == len(set(other)) == len(set(mix)) == 4
            assert {clip.speaker for clip in own} == {name}
            assert len({clip.speaker for clip in other} - {name}) == 1
            mixed = [clip.speaker for clip in mix]
            assert mixed in (["bob", "dan"] * 2, ["ann", "cem"] * 2)
            assert name not in mixed


def test_every_source_and_method_once(
    tmp_path: Path, setting: keywords.Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "keywords.json"
    document = keywords.keywords(out, setting)
    assert read_document(out, KeywordsDocument) == document
    places = 2
    assert len(document.rows) == places * (1 + 2 + 3 * 3)
    assert len({row.key for row in document.rows}) == len(document.rows)
    for row in document.rows:
        assert len(row.right) == len(LABELS)
        assert (row.divergence == 0) == (row.bits is None)
    budgets = {row.bytes for row in document.rows if row.bits is not None}
    assert max(budgets) - min(budgets) < 0.15 * max(budgets)
    own = [row for row in document.summary if row.source == "own"]
    assert {(row.method, row.order) for row in own} == {
        ("auto", None),
        ("myqasr", "ascending"),
        ("myqasr", "descending"),
    }
    for pooled in document.summary:
        assert (pooled.speakers, pooled.draws, pooled.judged) == (2, 1, places * len(LABELS))
        rows = [row for row in document.rows if row.source == pooled.source and _names(row) == _names(pooled)]
        right = sum(row.right.count("1") for row in rows)
        assert pooled.accuracy.percent == pytest.approx(100 * right / pooled.judged, abs=1e-3)
    contrasts = set(own[0].contrasts)
    assert contrasts == {"other", "mix", "none", "myqasr ascending", "myqasr descending"}

    monkeypatch.setattr(keywords.Bench, "row", lambda self, one: pytest.fail("measured again"))
    assert keywords.keywords(out, setting).rows == document.rows

    page = report_keywords.section(out)
    assert page.count("| 2 | auto | 3 bits |") == 2
    assert "Full precision:" in page
    report_keywords.figure(out, tmp_path / "found.svg")
    assert "myqasr, descending, 2 clips" in (tmp_path / "found.svg").read_text()


def _names(row: object) -> tuple[object, ...]:
    return tuple(getattr(row, name) for name in ("method", "order", "bits", "clips"))
