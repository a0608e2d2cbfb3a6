"""The recipe of the keyword models, on clips of noise: who is taught, what a run leaves, what a card says."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import Wav2Vec2ConformerForSequenceClassification

from bitvox.benchmarks.dataset import read_dataset
from bitvox.benchmarks.reference_model import (
    evaluate_keywords,
    make_languages,
    synthesis,
    train_keywords,
    train_languages,
    training,
)
from bitvox.benchmarks.reference_model.data import Clip
from bitvox.compiler.frontend.loading import load_model, resolve_checkpoint

KEYWORDS, SPEAKERS = ("down", "left", "up"), ("a", "b", "c", "d")


def noise(keyword: str, speaker: str, seed: int) -> Clip:
    audio = 3000 * np.random.default_rng(seed).standard_normal(16_000)
    return Clip(audio.astype(np.int16), keyword, speaker)


@pytest.fixture(scope="module")
def commands() -> list[Clip]:
    return [noise(KEYWORDS[index % 3], SPEAKERS[index % 4], index) for index in range(36)]


@pytest.fixture
def corpus(tmp_path: Path, commands: list[Clip], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "speech" / train_keywords.CORPUS
    folder.mkdir(parents=True)
    with (folder / "manifest.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("path", "speaker", "keyword"))
        for number, clip in enumerate(commands):
            soundfile.write(folder / f"{number}.flac", clip.audio, 16_000)
            table.writerow((f"{number}.flac", clip.speaker, clip.text))
    monkeypatch.setenv("BITVOX_SPEECH", str(tmp_path / "speech"))


def test_each_speaker_is_a_stranger_to_one_model(corpus: None, commands: list[Clip]) -> None:
    first, second = (train_keywords.load_commands(half) for half in ("first", "second"))
    assert {clip.speaker for clip in first} == {"a", "c"}
    assert {clip.speaker for clip in second} == {"b", "d"}
    assert len(first) + len(second) == len(commands)
    assert train_keywords.other_half("first") == "second"


def test_a_rendering_is_one_second_and_never_the_same(commands: list[Clip]) -> None:
    rng = np.random.default_rng(0)
    audio = [train_keywords.rendered(commands[0], rng) for _ in range(20)]
    assert {one.shape for one in audio} == {(16_000,)}
    assert len({one.tobytes() for one in audio}) == 20
    for one in audio:
        assert one.dtype == np.float32
        assert abs(float(one.mean())) < 1e-4
        assert float(one.std()) == pytest.approx(1, abs=1e-3)


def test_a_run_resumes_and_its_model_loads_by_every_road(
    tmp_path: Path, corpus: None, commands: list[Clip]
) -> None:
    settings = training.Settings(tmp_path, hours=1.0, seed=1, ema_decay=0.5)
    trainer = training.Trainer(settings, train_keywords.KeywordRecipe(settings, commands))
    batch = next(trainer.batches())
    assert (batch.audio.shape, batch.seconds) == ((32, 16_000), 32)
    losses = [trainer.update(batch)["loss"] for _ in range(2)]
    assert all(np.isfinite(losses))
    assert trainer.evaluate() == {}  # nothing is chosen: there is no dev set
    trainer.report([{"loss": losses[-1]}], 64, {})
    trainer.save()
    again = training.Trainer(settings, train_keywords.KeywordRecipe(settings, commands))
    again.resume()
    assert again.step == 2
    again.used_s = 3600
    again.save()
    again.run()  # has had its time
    assert again.step == 2
    for old, new in zip(
        trainer.average.state_dict().values(), again.average.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(old, new)
    norm = again.average.get_submodule("wav2vec2_conformer.encoder.layers.0.conv_module.batch_norm")
    assert int(norm.num_batches_tracked) == 2  # the average knows its inputs' statistics

    folder = tmp_path / "final"
    again.recipe.export(again.average, folder)
    model = Wav2Vec2ConformerForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    labels = evaluate_keywords.recognise(model, commands[:4])
    loaded = load_model(folder)
    assert [loaded.transcribe(clip.audio / np.float32(32768)) for clip in commands[:4]] == labels

    evaluate_keywords.write_card(folder, "first", tmp_path, 1.0, 2, ["| all 2 | 18 | 9 |"])
    card = (folder / "README.md").read_text()
    assert "--half first" in card
    assert "2 steps of 32 clips" in card
    assert "taught: a, c." in card
    assert json.loads((tmp_path / "log.jsonl").read_text())["step"] == 2


def test_accuracies_of_all_speakers_and_of_each(commands: list[Clip]) -> None:
    heard = [clip.text if clip.speaker == "a" else "up" for clip in commands]
    rows = evaluate_keywords.accuracy_rows(commands, heard)
    assert len(rows) == 1 + len(SPEAKERS)
    assert rows[1].startswith("| a | 9 | 9 (100.0 %) | [66.4, 100.0] |")
    right = sum(label == clip.text for label, clip in zip(heard, commands, strict=True))
    assert rows[0].startswith(f"| all 4 | 36 | {right} (")


def test_voices_of_a_split_speak_in_no_other_and_in_every_language() -> None:
    splits = {split: set(make_languages.speakers(split)) for split in make_languages.SPEAKERS}
    assert sum(map(len, splits.values())) == len(set.union(*splits.values())) == 44
    for split, voices in splits.items():
        for language in ("de", "ja"):
            spoken = make_languages.utterances(language, split)
            assert spoken == make_languages.utterances(language, split)
            assert {one.voice.variant for one in spoken} == voices
            assert len(spoken) == 10 * len(voices)


@pytest.mark.skipif(not synthesis.espeak_available(), reason="espeak-ng is not installed")
def test_a_language_is_a_folder_that_a_classifier_is_taught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_languages, "SPEAKERS", {"train": 4, "dev": 1, "test": 1})
    monkeypatch.setattr(train_languages, "LANGUAGES", ("pl",))
    make_languages.write_language("pl", tmp_path)
    table = read_dataset(tmp_path / "pl" / "manifest.csv")
    assert len(table.utterances) == 60
    assert {one.text for one in table.utterances} == {f"pl-{digit}" for digit in range(10)}
    clips = train_languages.load_languages(tmp_path)
    assert {len(clip.audio) for clip in clips} == {16_000}
    settings = training.Settings(tmp_path, hours=1.0, seed=1)
    recipe = train_keywords.KeywordRecipe(settings, clips, train_languages.build_classifier)
    trainer = training.Trainer(settings, recipe)
    assert np.isfinite(trainer.update(next(trainer.batches()))["loss"])
    recipe.export(trainer.average, tmp_path / "final")
    heard = load_model(tmp_path / "final").transcribe(clips[0].audio / np.float32(32768))
    assert heard in recipe.labels


@pytest.mark.parametrize("half", ["first", "second"])
def test_shipped_models_load_by_name_and_say_whom_they_know(half: str, commands: list[Clip]) -> None:
    name = "reference-keywords" if half == "first" else "reference-keywords-swapped"
    folder = resolve_checkpoint(name)
    model = Wav2Vec2ConformerForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    loaded = load_model(name)
    assert loaded.family == "classifier"
    heard = [loaded.transcribe(clip.audio / np.float32(32768)) for clip in commands[:4]]
    assert heard == evaluate_keywords.recognise(model, commands[:4])
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith(f"# {name}\n")
    assert f"--half {half} --out RUN" in card
    assert "CC BY 4.0" in card
    assert len(model.config.id2label) == 40
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5_000_000
