"""Whom a model is calibrated on: sets apart from what judges, equal seconds, pairs, and runs that go on."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bitvox.benchmarks.experiments import gender, report_gender, report_speakers, speakers
from bitvox.benchmarks.experiments.contrasts import Told, contrast
from bitvox.benchmarks.experiments.people import Person, first_seconds, read_people
from bitvox.benchmarks.experiments.results import read_document
from bitvox.benchmarks.experiments.speaker_rows import Arm, SpeakersDocument


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets of noise: women and men, of the second also children, in train and dev."""
    folder = tmp_path_factory.mktemp("people")
    generator = np.random.default_rng(0)
    for corpus, ages in (("an4", ("",)), ("speechocean762", ("child", "adult"))):
        rows = []
        kinds = [(split, sex, age) for split in ("train", "dev") for sex in "fm" for age in ages]
        for number, (split, sex, age) in enumerate([*kinds, *kinds]):
            for clip in range(4):
                path = f"{split}-{number}-{clip}.wav"
                (folder / corpus).mkdir(exist_ok=True)
                samples = 0.1 * (1 + (sex == "m")) * generator.standard_normal(3000)
                soundfile.write(folder / corpus / path, samples.astype(np.float32), 16000)
                row = {"path": path, "speaker": f"s{number}", "gender": sex, "split": split, "text": "ab ca"}
                rows.append(row | ({"age_group": age} if age else {}))
        with (folder / corpus / "manifest.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    return folder


@pytest.fixture(scope="module")
def people(voices: Path) -> dict[str, list[Person]]:
    return {corpus: read_people(voices, corpus) for corpus in ("an4", "speechocean762")}


def test_sets_have_their_seconds_and_no_more(people: dict[str, list[Person]]) -> None:
    spoken = people["an4"][0].utterances
    clips = first_seconds(spoken, 0.5, 16000, 400)
    assert [clip.samples.size for clip in clips] == [3000, 3000, 2000]
    assert len(first_seconds(spoken, 9.0, 16000, 400)) == 4
    assert [clip.samples.size for clip in first_seconds(spoken, 0.2, 16000, 400)] == [3000]  # a rest of 200


def test_a_contrast_is_paired_and_says_what_it_could_have_found() -> None:
    pairs = [
        (f"s{n}", Told(n % 2, 10, 1.0 + n, 100), Told(1 + n % 2, 10, 2.0 * (1.0 + n), 100)) for n in range(6)
    ]
    found = contrast(pairs, "an4", "all", "auto", 3.0, "own", "mix")
    assert (found.words.percent, found.words.low, found.words.high) == (-10.0, -10.0, -10.0)
    assert found.divergence.percent == pytest.approx(-50)
    assert (found.detectable_words, found.speakers, found.pairs) == (0.0, 6, 6)
    wide = contrast(
        [*pairs, ("t", Told(9, 10, 1.0, 9), Told(0, 10, 1.0, 9))], "an4", "all", "auto", 3.0, "a", "b"
    )
    assert wide.detectable_words and wide.detectable_words > 5


def test_gender(
    tmp_path: Path, checkpoint: Path, people: dict[str, list[Person]], monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = gender.Setting(
        str(checkpoint),
        {"an4": people["an4"]},
        "dev",
        {"an4": 2},
        arms=(("auto", 3.0), ("myqasr", 4.0)),
        draws=2,
        seconds=0.4,
    )
    for source in ("f", "m", "both"):
        drawn = gender.calibration(setting, "an4", source, 0)
        genders = {person.speaker: person.gender for person in people["an4"] if person.split == "train"}
        assert {genders[one.speaker or ""] for one in drawn} == ({"f", "m"} if source == "both" else {source})
    out = tmp_path / "gender_dev.json"
    document = gender.gender(out, setting)
    assert len(document.rows) == 1 + 2 * (1 + 2 * 3)
    assert {row.bytes for row in document.rows if row.method == "auto"} == {document.rows[1].bytes}
    auto = {(row.source, row.draw): row.divergence for row in document.rows if row.method == "auto"}
    assert len(set(auto.values())) == len(auto)  # every set rounds another way
    against = [(one.against, one.people, one.pairs) for one in document.summary if one.method == "auto"]
    assert ("other", "all", 2 * 4) in against and ("none", "women", 2 * 2) in against
    page = report_gender.section(out)
    assert "The same gender against other, 2 comparisons:" in page
    assert "Stopped after" not in page
    report_gender.figure(out, tmp_path / "gender.svg")
    monkeypatch.setattr(gender, "_row", lambda *words: pytest.fail("measured again"))
    assert gender.gender(out, setting).rows == document.rows


def test_speakers(
    tmp_path: Path, checkpoint: Path, people: dict[str, list[Person]], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = {"speechocean762": people["speechocean762"]}
    setting = speakers.Setting(
        str(checkpoint),
        corpus,
        "dev",
        {"speechocean762": 1},
        arms=(Arm("auto", 3.0, 0.3, (0.5,)),),
        draws=1,
        generic_seconds=0.5,
    )
    out = tmp_path / "speakers_dev.json"
    document = speakers.speakers(out, setting)
    rows = [row for row in document.rows if row.source in ("own", "other gender", "other age")]
    for row in rows:
        assert (row.donor == row.speaker) == (row.source == "own")
        assert row.seconds == 0.3
    assert len({(row.speaker, row.half) for row in document.rows}) == 2 * 4
    own = {(row.speaker, row.half): row for row in rows if row.source == "own" and row.own_share == 1}
    shared = [row for row in rows if row.own_share == 0.5]
    assert len(own) == len(shared) == 8
    assert all(row.divergences != own[row.speaker, row.half].divergences for row in shared)
    told = {(one.on, one.against, one.people) for one in document.summary}
    assert ("own, 0.3 s", "other age", "children") in told
    assert ("own share 0.5, 0.3 s", "generic", "all") in told
    page = report_speakers.section(out)
    assert "The user's own voice against mix" in page
    assert "H_generic from 0.5 s of training speakers; against" in page
    report_speakers.figure(out, tmp_path / "speakers.svg")

    kept = document.model_copy(update={"rows": document.rows[:-1]})
    out.write_text(kept.model_dump_json())
    assert f"Stopped after {len(kept.rows)} of {len(document.rows)} rows" in report_speakers.section(out)
    made: list[object] = []
    rows_of = speakers._Bench.rows
    monkeypatch.setattr(
        speakers._Bench, "rows", lambda self, *words: made.append(words) or rows_of(self, *words)
    )
    again = speakers.speakers(out, setting)
    assert len(made) == 1
    assert again.rows == document.rows == read_document(out, SpeakersDocument).rows


def test_a_half_never_calibrates_its_own_judgement(
    tmp_path: Path, checkpoint: Path, people: dict[str, list[Person]]
) -> None:
    corpus = {"an4": people["an4"]}
    setting = speakers.Setting(
        str(checkpoint), corpus, "dev", {"an4": 2}, arms=(Arm("auto", 3.0, 0.3),), draws=1
    )
    judged = speakers.chosen_people(setting, "an4")
    for model in speakers._models(setting, {"an4": judged}):
        kind, donor, half = model.source
        for person, judged_half, _ in model.targets:
            assert kind != "own" or (person.speaker, judged_half) != (donor, half)
    wrong = replace(setting, arms=())
    bench = speakers._Bench(wrong, tmp_path)
    person = judged[0]
    with pytest.raises(speakers.InputError, match="calibrates and is judged on"):
        model = speakers._Model(
            Arm("auto", 3.0, 0.3), "an4", ("own", person.speaker, 0), 1.0, ((person, 0, "own"),)
        )
        list(bench.rows(model, ["k"]))
