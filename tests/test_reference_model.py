"""The reference model's recipe (without training) and the checkpoint and voices that ship."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2ForCTC, Wav2Vec2Processor, WhisperTokenizer

from bitvox.benchmarks.reference_model import (
    evaluate,
    synthesis,
    train,
    train_whisper,
    training,
    whisper_text,
    windows,
)
from bitvox.benchmarks.reference_model.data import Clip, JoinedClips, Mixture, as_float, augment, read_clip
from bitvox.benchmarks.reference_model.evaluate import clustered_rate, rates, transcribe
from bitvox.benchmarks.reference_model.make_voices import SAMPLE_VOICES, SPELLED, SPLITS, sample_texts
from bitvox.benchmarks.reference_model.splicing import WordStock, align, cut_words
from bitvox.compiler.frontend.loading import load_model

ASSETS = Path(__file__).resolve().parents[1] / "bitvox" / "assets"
SENTENCES = ("WE CALL IT BEAR", "THEN WE CALL THE MAN", "TOM GIVES UP BOXING")
needs_espeak = pytest.mark.skipif(not synthesis.espeak_available(), reason="espeak-ng is not installed")


def tone(seconds: float, text: str = "A", speaker: str = "s") -> Clip:
    time = np.arange(int(seconds * 16_000)) / 16_000
    return Clip((8000 * np.sin(2 * np.pi * 220 * time)).astype(np.int16), text, speaker)


def voice_clips(name: str) -> list[Clip]:
    folder = ASSETS / "voices" / name
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return [read_clip(folder / row["path"], row["text"], name) for row in csv.DictReader(file)]


def test_texts_repeat_from_a_seed_and_stay_in_the_alphabet() -> None:
    first, second = (synthesis.plan(5, 60, 20, SENTENCES) for _ in range(2))
    assert first == second
    assert first != synthesis.plan(6, 60, 20, SENTENCES)
    letters = set("".join(one.text for one in first))
    assert letters <= set(synthesis.LETTERS) | {" ", "'"}
    assert all(one.text and one.text == " ".join(one.text.split()) for one in first)


def test_training_voices_leave_out_the_demo_voices() -> None:
    demo = {sample.voice.variant for sample in SAMPLE_VOICES}
    assert demo == synthesis.HELD_OUT_VARIANTS
    assert not demo & set(synthesis.VARIANTS)
    assert not set(SPELLED) & set(synthesis.NAMES)


def test_letters_are_spelled_and_the_article_is_read() -> None:
    assert synthesis.spoken_form("A Z B").startswith("[['eI]] zee")
    assert synthesis.spoken_form("HAS A BIG ARM") == "has a big arm"


def test_chain_makes_sentences_of_known_words() -> None:
    chain = synthesis.SentenceChain(SENTENCES)
    known = {word for sentence in SENTENCES for word in sentence.split()}
    for seed in range(20):
        words = chain.sample(random.Random(seed)).split()
        assert words
        assert set(words) <= known


@needs_espeak
def test_speech_repeats_exactly() -> None:
    utterance = synthesis.Utterance("B A R SIX", synthesis.Voice("en-us", "f2", speed=150, pitch=50))
    first, second = synthesis.speak_all([utterance, utterance])
    assert first.dtype == np.int16
    assert 0.5 < len(first) / synthesis.SAMPLE_RATE < 5
    np.testing.assert_array_equal(first, second)


@needs_espeak
def test_phonemes_are_numbered_from_one() -> None:
    table = synthesis.PhonemeTable(["BEE B", "SEA C"])
    assert table.encode("B") == table.encode("BEE")
    assert sorted(set(table.encode("BEE SEA"))) == list(range(1, table.size))


def test_augmentation_repeats_and_normalises() -> None:
    clip = tone(1.0)
    first, second = (augment(clip.audio, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.dtype == np.float32
    assert 16_000 / 1.15 - 2 <= len(first) <= 16_000 / 0.85 + 2 * 0.35 * 16_000
    assert abs(first.mean()) < 1e-3
    assert first.var() == pytest.approx(1.0, rel=1e-2)


def test_batches_are_bounded_near_equal_and_repeatable() -> None:
    clips = [tone(0.5 + 0.1 * index, str(index), speaker=f"s{index % 3}") for index in range(30)]
    other = [tone(1.0, "other")]
    mixture = Mixture({"an4": JoinedClips(clips, 0.5).draw, "other": lambda rng: rng.choice(other)})
    weights = {"an4": 0.5, "other": 0.5}
    batches = list(mixture.batches(weights, seed=1, pool=40, seconds=12.0))
    assert sum(len(batch.texts) for batch in batches) == 40
    for batch in batches:
        assert batch.audio.shape[0] == len(batch.texts)
        assert batch.audio.size <= 12.0 * 16_000
    again = list(mixture.batches(weights, seed=1, pool=40, seconds=12.0))
    assert [batch.texts for batch in again] == [batch.texts for batch in batches]
    joined = [text for batch in batches for text in batch.texts if " " in text]
    assert joined, "some clips of the joined source must come in pairs"


def test_tokens_are_aligned_with_the_frames_that_say_them() -> None:
    said = np.array([0, 0, 3, 3, 0, 3, 0, 0, 5, 5, 0])
    scores = np.full((len(said), 6), np.log(0.02), dtype=np.float32)
    scores[np.arange(len(said)), said] = np.log(0.9)
    np.testing.assert_array_equal(align(scores, [3, 3, 5]), [2, 5, 8])
    with pytest.raises(ValueError, match="4 frames are too few for 3 tokens"):
        align(scores[:4], [3, 3, 3])  # equal neighbours need a blank between them


def test_cut_words_join_to_the_clip_and_are_heard_alone() -> None:
    model = Wav2Vec2ForCTC.from_pretrained(ASSETS / "reference-ctc", dtype=torch.float32)
    processor = Wav2Vec2Processor.from_pretrained(ASSETS / "reference-ctc")
    clips = [clip for clip in voice_clips("nora") if len(clip.text.split()) > 2][:8]
    utterances = cut_words(clips, model, processor)
    assert utterances
    for words in utterances:
        clip = next(clip for clip in clips if clip.text == " ".join(word.text for word in words))
        np.testing.assert_array_equal(np.concatenate([word.audio for word in words]), clip.audio)
    stock = WordStock(utterances)
    drawn = [stock.draw(random.Random(seed)) for seed in range(12)]
    assert [one.text for one in drawn] == [stock.draw(random.Random(seed)).text for seed in range(12)]
    assert not {one.text for one in drawn} & {clip.text for clip in clips}
    assert rates("spliced", drawn, transcribe(model, processor, drawn)).wer.percent < 60


def test_interval_brackets_the_rate_and_needs_several_speakers() -> None:
    errors, words = np.array([1, 0, 3, 0]), np.array([4, 4, 4, 4])
    rate = clustered_rate(errors, words, ["a", "a", "b", "c"])
    assert rate.percent == 25.0
    assert rate.low <= rate.percent <= rate.high
    alone = clustered_rate(errors, words, ["a"] * 4)
    assert alone.low == alone.high == 25.0


def test_learning_rate_rises_then_falls() -> None:
    settings = training.Settings(Path("run"), hours=1.0, seed=1)
    factors = [training.rate_factor(settings, progress) for progress in (0.0, settings.warm_up, 0.5, 1.0)]
    assert factors[1] == pytest.approx(1.0)
    assert factors[0] < factors[1] > factors[2] > factors[3] > 0


def test_shipped_checkpoint_starts_a_run_with_its_first_filters_kept() -> None:
    model = train.build_model(str(train.ASSETS))
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert {name.split(".conv_layers.")[1][0] for name in frozen} == {"0", "1"}
    with pytest.raises(FileNotFoundError):
        train.build_model("no-such-folder")


@pytest.fixture(scope="module")
def few_clips() -> dict[str, list[Clip]]:
    clips = [clip for clip in voice_clips("nora") if len(clip.text.split()) > 2]
    return dict.fromkeys(("an4", "speechocean762", "spelling", "sentences"), clips[:6])


def ctc_recipe(settings: training.Settings, sources: dict[str, list[Clip]]) -> training.Recipe[Any]:
    return train.CTCRecipe(settings, str(train.ASSETS), sources)


@needs_espeak
@pytest.mark.parametrize("make", [ctc_recipe, train_whisper.WhisperRecipe])
def test_a_run_resumes_where_it_stopped(
    few_clips: dict[str, list[Clip]], tmp_path: Path, make: Callable[..., training.Recipe[Any]]
) -> None:
    settings = training.Settings(tmp_path, hours=1.0, seed=1, ema_decay=0.5)
    trainer = training.Trainer(settings, make(settings, few_clips))
    batch = next(trainer.batches())
    assert batch.seconds > 1
    before = [parameter.clone() for parameter in trainer.average.parameters()]
    losses = [trainer.update(batch) for _ in range(2)]
    assert all(np.isfinite(value) for step in losses for value in step.values())
    assert any(
        not torch.equal(old, new) for old, new in zip(before, trainer.average.parameters(), strict=True)
    )
    trainer.save()
    again = training.Trainer(settings, make(settings, few_clips))
    again.resume()
    assert again.step == 2
    for old, new in zip(trainer.average.parameters(), again.average.parameters(), strict=True):
        torch.testing.assert_close(old, new)
    again.recipe.export(again.average, tmp_path / "best")
    clips = few_clips["an4"][:2]
    heard = evaluate.Checkpoint.load(tmp_path / "best").listen(clips)
    assert len(heard) == 2


def test_losses_of_some_steps_are_averaged_over_those() -> None:
    assert training.mean_losses([{"loss": 1.0, "lesson": 4.0}, {"loss": 2.0}]) == {"loss": 1.5, "lesson": 4.0}


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = whisper_text.build_tokenizer(("ENTER SEVEN", "A B C SEVEN", *SENTENCES), windows.WINDOW_S)
    tokenizer.save_pretrained(folder)
    return folder


def test_tokens_are_where_a_whisper_decoder_looks_for_them(tokenizer_folder: Path) -> None:
    tokenizer = WhisperTokenizer.from_pretrained(tokenizer_folder)
    numbers = tokenizer.convert_tokens_to_ids([*whisper_text.SPECIAL, "<|0.00|>", "<|10.00|>"])
    end = numbers[0]
    assert numbers[:-1] == list(range(end, end + len(numbers) - 1))
    assert numbers[-1] == len(tokenizer) - 1 == numbers[-2] + 500
    prompt = [tokenizer.decode([token]) for token in tokenizer.prefix_tokens]
    assert prompt == ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]


@pytest.mark.parametrize("text", ["", "ENTER SEVEN", "SEVEN A B C", "IT'S NEVER HEARD BEFORE, ÄÖ!"])
def test_any_text_survives_its_tokens(tokenizer_folder: Path, text: str) -> None:
    tokenizer = WhisperTokenizer.from_pretrained(tokenizer_folder)
    assert tokenizer.decode(tokenizer(f" {text}").input_ids, skip_special_tokens=True) == f" {text}"


def test_clips_are_placed_in_whole_windows_or_cut_ones() -> None:
    audio = np.random.default_rng(0).standard_normal((3, 30_000)).astype(np.float32).clip(-3.9, 3.9)
    for full, length in ((True, 160_000), (False, 30_080)):
        rows, plain = windows.placed(audio, full, np.random.default_rng(1))
        assert rows.shape == plain.shape == (3, length)
        assert np.abs(rows).max() <= 1
        for row, clip in zip(plain, audio, strict=True):
            start = int(np.flatnonzero(row)[0])
            np.testing.assert_allclose(row[start : start + clip.size], clip, atol=1e-4)
    assert len(set(windows.placed(audio, True, np.random.default_rng(1))[0].std(axis=1))) == 3


def test_masks_hide_bands_and_leave_the_rest() -> None:
    torch.manual_seed(0)
    features = torch.rand(4, 80, 400)
    hidden = windows.masked(features) != features
    assert 0.02 < hidden.float().mean() < 0.6
    assert (hidden.all(dim=1).any(dim=1) | hidden.all(dim=2).any(dim=1)).any()


def test_silence_has_no_words_and_a_long_clip_is_drawn_again() -> None:
    drawn = [windows.silence(random.Random(seed)) for seed in range(30)]
    assert {clip.text for clip in drawn} == {""}
    assert any(not clip.audio.any() for clip in drawn)
    long, fits = tone(9.0, "LONG"), tone(1.0, "FITS")
    draw = windows.short(lambda rng: rng.choice((long, fits)))
    assert {draw(random.Random(seed)).text for seed in range(10)} == {"FITS"}


@pytest.mark.parametrize("sample", SAMPLE_VOICES, ids=lambda sample: sample.folder)
def test_voice_folder_holds_what_its_seed_says(sample: object) -> None:
    folder = ASSETS / "voices" / sample.folder  # type: ignore[attr-defined]
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == sample_texts(sample.seed)  # type: ignore[attr-defined]
    assert tuple(row["split"] for row in rows) == SPLITS
    assert all((folder / row["path"]).is_file() for row in rows)


def test_shipped_checkpoint_transcribes_the_sample_voices() -> None:
    from transformers import Wav2Vec2ForCTC, Wav2Vec2Processor

    folder = ASSETS / "reference-ctc"
    model = Wav2Vec2ForCTC.from_pretrained(folder, dtype=torch.float32)
    processor = Wav2Vec2Processor.from_pretrained(folder)
    clips = voice_clips("nora")[:8]
    result = rates("nora", clips, transcribe(model, processor, clips))
    assert result.wer.percent < 25


def test_shipped_encoder_decoder_writes_by_name_what_transformers_writes() -> None:
    clips = voice_clips("nora")[:6]
    heard = evaluate.Checkpoint.load(ASSETS / "reference-whisper").listen(clips)
    model = load_model("reference-whisper")
    assert [model.transcribe(as_float(clip.audio)) for clip in clips] == heard
    assert rates("nora", clips, heard).wer.percent < 60
    assert model.transcribe(np.zeros(16_000, dtype=np.float32)) == ""
