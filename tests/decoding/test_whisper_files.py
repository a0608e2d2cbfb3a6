"""What a checkpoint's files say of its features, tokens and prompts; what is wrong with them, in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from transformers import WhisperConfig, WhisperTokenizer
from whisper_checkpoint import LANGUAGES, SECONDS, write_checkpoint

from bitvox.compiler.frontend.decoding import DecodingOptions
from bitvox.compiler.frontend.processor import AnyProcessor
from bitvox.compiler.frontend.whisper_files import read_whisper_processor
from bitvox.compiler.frontend.whisper_processor import WhisperProcessor
from bitvox.errors import InputError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of several languages; tests change a copy."""
    return write_checkpoint(tmp_path_factory.mktemp("whisper"))


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def read(folder: Path) -> WhisperProcessor:
    """The processor of a folder."""
    return read_whisper_processor(folder, WhisperConfig.from_pretrained(folder))


def change(path: Path, **values: Any) -> None:
    """Change values of a JSON file; None removes one."""
    kept = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({name: value for name, value in kept.items() if value is not None}))


@pytest.mark.parametrize(
    "text",
    ["the one then", " Über 水 né", "tab\tand\nline \\n", "", "smörgåsbord <|1.00|>, don't ."],
)
def test_text_is_what_the_tokenizer_decodes(checkpoint: Path, text: str) -> None:
    tokenizer, processor = WhisperTokenizer.from_pretrained(checkpoint), read(checkpoint)
    tokens = tokenizer(text).input_ids  # with a prompt and an end
    assert len(tokens) > 2 and tokens[0] == processor.start and tokens[-1] == processor.end
    assert processor.text(tokens) == tokenizer.decode(tokens, skip_special_tokens=True)


def test_a_character_cut_in_half_is_marked_as_the_tokenizer_marks_it(checkpoint: Path) -> None:
    tokenizer, processor = WhisperTokenizer.from_pretrained(checkpoint), read(checkpoint)
    tokens = tokenizer("水ü", add_special_tokens=False).input_ids
    for cut in range(1, len(tokens)):
        assert processor.text(tokens[:cut]) == tokenizer.decode(tokens[:cut])
        assert processor.text(tokens[cut:]) == tokenizer.decode(tokens[cut:])


def test_a_manifest_holds_it_and_gives_it_back(checkpoint: Path) -> None:
    processor = read(checkpoint)
    any_processor: TypeAdapter[Any] = TypeAdapter(AnyProcessor)
    written = any_processor.dump_json(processor)
    assert any_processor.validate_json(written) == processor
    damaged = {**json.loads(written), "vocabulary": "no vocabulary"}
    with pytest.raises(ValidationError, match="vocabulary"):
        any_processor.validate_python(damaged)


def test_prompts_name_language_task_and_whether_times_are_written(checkpoint: Path) -> None:
    tokenizer, processor = WhisperTokenizer.from_pretrained(checkpoint), read(checkpoint)
    assert tokenizer.convert_ids_to_tokens(processor.prompt("de", "translate", False)) == [
        "<|de|>",
        "<|translate|>",
        "<|notimestamps|>",
    ]
    assert tokenizer.convert_ids_to_tokens(processor.prompt("zh", "transcribe", True)) == [
        "<|zh|>",
        "<|transcribe|>",
    ]
    assert processor.input_shape(1) == processor.features(np.zeros(9, np.float32)).shape
    assert processor.window_samples == SECONDS * processor.sampling_rate


@pytest.mark.parametrize("asked", ["de", "German", " GERMAN "])
def test_a_language_goes_by_its_code_or_its_name(checkpoint: Path, asked: str) -> None:
    assert read(checkpoint).language_of(DecodingOptions(language=asked)) == "de"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (DecodingOptions(language="klingon"), "'klingon': this model knows de, en, zh"),
        (DecodingOptions(language="fr"), "'fr': this model knows de, en, zh"),
        (DecodingOptions(task="sing"), "'sing': this model knows transcribe, translate"),  # type: ignore[arg-type]
        (DecodingOptions(beams=0), "beams 0: a search keeps 1 to 16"),
        (DecodingOptions(beams=17), "beams 17: a search keeps 1 to 16"),
        (DecodingOptions(max_tokens=0), "max_tokens 0"),
    ],
)
def test_what_a_checkpoint_cannot_do_is_refused(
    checkpoint: Path, options: DecodingOptions, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        read(checkpoint).check(options)


def test_a_checkpoint_of_one_language_refuses_languages_and_tasks(tmp_path: Path) -> None:
    processor = read(write_checkpoint(tmp_path, languages=()))
    assert processor.language_of(DecodingOptions()) is None
    assert processor.prompt(None, "transcribe", False) == (processor.no_timestamps,)
    with pytest.raises(InputError, match="knows one language"):
        processor.check(DecodingOptions(language="en"))
    with pytest.raises(InputError, match="this model knows transcribe"):
        processor.check(DecodingOptions(task="translate"))


def test_without_generation_config_names_of_tokens_tell_languages_and_tasks(folder: Path) -> None:
    before = read(folder)
    (folder / "generation_config.json").unlink()
    after = read(folder)
    assert (after.languages, after.tasks) == (before.languages, before.tasks) and before.languages
    assert (after.no_timestamps, after.no_speech, after.previous) == (
        before.no_timestamps,
        before.no_speech,
        before.previous,
    )
    assert after.max_tokens == 48


def test_a_language_that_the_checkpoint_forces_is_taken_where_none_is_asked_for(folder: Path) -> None:
    languages = read(folder).languages
    change(folder / "generation_config.json", forced_decoder_ids=[[1, languages["zh"]], [2, 267]])
    assert read(folder).language_of(DecodingOptions()) == "zh"
    assert read(folder).language_of(DecodingOptions(language="en")) == "en"
    change(folder / "generation_config.json", forced_decoder_ids=[[1, None], [2, 267]])
    assert read(folder).language_of(DecodingOptions()) is None
    assert set(languages) == set(LANGUAGES)


def test_a_vocabulary_without_times_writes_none(folder: Path) -> None:
    processor = read(folder).model_copy(update={"no_timestamps": None})
    assert processor.first_time is None and processor.prompt("en", "transcribe", False)[-1] == 267
    with pytest.raises(InputError, match="timestamps: this model writes none"):
        processor.check(DecodingOptions(timestamps=True))


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        (["tokenizer.json"], "no tokenizer.json, nor vocab.json"),
        (["preprocessor_config.json"], "no preprocessor_config.json"),
    ],
)
def test_a_missing_file_is_named(folder: Path, missing: list[str], said: str) -> None:
    for name in missing:
        (folder / name).unlink()
    with pytest.raises(InputError, match=said):
        read(folder)


@pytest.mark.parametrize(
    ("file", "values", "said"),
    [
        ("preprocessor_config.json", {"chunk_length": 30}, "16 features of 3000 frames.*16 of 200"),
        ("preprocessor_config.json", {"feature_size": 80}, "80 features of 200 frames.*16 of 200"),
        ("config.json", {"vocab_size": 300}, "tokens up to 372, the head has 300 outputs"),
        ("generation_config.json", {"decoder_start_token_id": 999}, "start is token 999, there are 373"),
        ("generation_config.json", {"eos_token_id": [999]}, "end is token 999"),
        ("generation_config.json", {"lang_to_id": {"<|en|>": 999}}, "language 'en' is token 999"),
        ("generation_config.json", {"prev_sot_token_id": -1}, "previous is token -1"),
        ("generation_config.json", {"max_length": -5}, "max_tokens: Input should be greater"),
        ("config.json", {"max_target_positions": 2}, "positions: Input should be greater"),
    ],
)
def test_files_that_contradict_each_other_are_refused(
    folder: Path, file: str, values: dict[str, Any], said: str
) -> None:
    change(folder / file, **values)
    with pytest.raises(InputError, match=said):
        read(folder)
