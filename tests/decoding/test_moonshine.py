"""Moonshine's files, what is wrong with them in one line, long recordings, and the whole road."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from encoder_decoders import RATE, clip
from moonshine_checkpoint import MOST_TOKENS, write_checkpoint
from operator_libraries import require_onnxruntime
from pydantic import TypeAdapter
from transformers import PreTrainedTokenizerFast

from bitvox.compiler.frontend.decoding import DecodingOptions
from bitvox.compiler.frontend.loading import load_model
from bitvox.compiler.frontend.processor import AnyProcessor
from bitvox.errors import InputError
from support import run


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("moonshine"))


@pytest.mark.parametrize("text", ["the one then", "Über 水 né the", "tab\tand\nline \\n", "x"])
def test_text_is_what_the_tokenizer_decodes(checkpoint: Path, text: str) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint)
    processor = load_model(checkpoint).processor
    tokens = [processor.start, *tokenizer(text).input_ids, processor.end]
    assert processor.text(tokens).strip() == tokenizer.decode(tokens, skip_special_tokens=True) == text


def test_a_manifest_holds_its_processor_and_gives_it_back(checkpoint: Path) -> None:
    processor = load_model(checkpoint).processor
    any_processor: TypeAdapter[AnyProcessor] = TypeAdapter(AnyProcessor)
    assert any_processor.validate_json(any_processor.dump_json(processor)) == processor
    assert processor.max_tokens == MOST_TOKENS
    shortest = np.zeros(processor.minimum_samples, np.float32)
    assert load_model(checkpoint).module.encode(load_model(checkpoint).inputs(shortest)[0]).shape[1] == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (DecodingOptions(language="en"), "knows one language"),
        (DecodingOptions(task="translate"), "this model knows transcribe"),
        (DecodingOptions(timestamps=True), "writes none"),
    ],
)
def test_what_it_cannot_do_is_refused(checkpoint: Path, options: DecodingOptions, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_model(checkpoint).processor.check(options)


@pytest.mark.parametrize(
    ("file", "values", "said"),
    [
        ("config.json", {"vocab_size": 300}, "300"),
        ("generation_config.json", {"decoder_start_token_id": 999}, "start is token 999"),
    ],
)
def test_a_broken_checkpoint_is_refused(
    checkpoint: Path, tmp_path: Path, file: str, values: dict[str, int], said: str
) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    with pytest.raises(InputError, match=said):
        load_model(folder)


def test_shared_heads_are_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, encoder_num_key_value_heads=1, decoder_num_key_value_heads=1)
    with pytest.raises(InputError, match=r"layers.0.self_attn has fewer heads of keys than of queries"):
        load_model(folder)


@pytest.mark.parametrize(
    ("missing", "said"), [("tokenizer.json", "no tokenizer.json"), ("preprocessor_config.json", "no prepr")]
)
def test_a_missing_file_is_named(checkpoint: Path, tmp_path: Path, missing: str, said: str) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    (folder / missing).unlink()
    with pytest.raises(InputError, match=said):
        load_model(folder)


def test_it_goes_the_whole_road(tmp_path: Path) -> None:
    require_onnxruntime()
    voice, bundle = tmp_path / "voice", tmp_path / "bundle"
    voice.mkdir()
    for seed in range(4):
        soundfile.write(voice / f"{seed}.wav", clip(seed), RATE)
    checkpoint = write_checkpoint(tmp_path / "checkpoint", width=64)
    largest = run("compile", checkpoint, "--audio", voice, "--budget", "1MB", "--out", bundle)
    words = ["compile", checkpoint, "--audio", voice, "--out", bundle, "--kernels", "packed"]
    compiled = run(*words, "--budget", largest["bytes"] - 30_000)
    assert compiled["bytes"] == sum(path.stat().st_size for path in bundle.iterdir()) <= compiled["budget"]
    assert compiled["average_bits"] < largest["average_bits"] == 8
    assert run("verify", bundle)["findings"] == []
    soundfile.write(voice / "long.wav", np.tile(clip(0), 40), RATE)
    [found] = run("transcribe", bundle, voice / "long.wav", "--beams", 2)["transcripts"]
    assert found["seconds"] > 30 and found["text"]
    judged = run("eval", bundle, "--data", voice, "--checkpoint", checkpoint)
    assert judged["comparison"]["word_error_rate"]["length"] > 0
    assert run("bench", bundle, "--seconds", "0.5", "--checkpoint", checkpoint)["time_ratio"]["median"] > 0
