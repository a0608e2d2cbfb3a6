"""Greedy and beam search write what transformers' `generate` writes, token by token."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from encoder_decoders import clip
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration
from whisper_checkpoint import LANGUAGES, TorchGraphs, generate, write_checkpoint

from bitvox.compiler.frontend.decoding import DecodingOptions
from bitvox.compiler.frontend.long_form import Listener, transcribe
from bitvox.compiler.frontend.whisper_files import read_whisper_processor
from bitvox.compiler.frontend.whisper_processor import WhisperProcessor

RATE = 16_000
CLIPS = 6


class Loaded(NamedTuple):
    """A checkpoint as transformers loads it, and as bitvox does."""

    model: WhisperForConditionalGeneration
    extractor: WhisperFeatureExtractor
    processor: WhisperProcessor


def load(folder: Path) -> Loaded:
    """Both ways of reading a folder."""
    model = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    processor = read_whisper_processor(folder, model.config)
    return Loaded(model, WhisperFeatureExtractor.from_pretrained(folder), processor)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """A checkpoint of several languages."""
    return load(write_checkpoint(tmp_path_factory.mktemp("many")))


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """A checkpoint of one language."""
    return load(write_checkpoint(tmp_path_factory.mktemp("one"), languages=(), seed=1))


def compare(loaded: Loaded, options: DecodingOptions) -> list[bool]:
    """Assert that both write the same of every clip; whether a text ended before its limit."""
    processor, ended = loaded.processor, []
    for seed in range(CLIPS):
        samples = clip(seed)
        graphs = TorchGraphs(loaded.model)
        listener = Listener(graphs, processor, options, processor.language_of(options))
        heard = listener.hear(samples, options.timestamps)
        assert heard is not None
        prompt = processor.prompt(listener.language, options.task, options.timestamps)
        assert [processor.start, *prompt, *heard.tokens] == generate(
            loaded.model, processor, samples, options
        )
        ended.append(heard.ended)
    return ended


@pytest.mark.parametrize(
    "options",
    [
        DecodingOptions(),
        DecodingOptions(language="German", task="translate"),
        DecodingOptions(language="zh", max_tokens=5),
        DecodingOptions(timestamps=True),
        DecodingOptions(beams=4),
        DecodingOptions(language="de", beams=3, max_tokens=9),
        DecodingOptions(timestamps=True, beams=5),
    ],
    ids=str,
)
def test_tokens_are_those_of_generate(many: Loaded, options: DecodingOptions) -> None:
    ended = compare(many, options)
    assert any(ended) or options.max_tokens


@pytest.mark.parametrize("options", [DecodingOptions(), DecodingOptions(timestamps=True, beams=2)], ids=str)
def test_a_checkpoint_of_one_language_has_no_languages_in_its_prompt(
    one: Loaded, options: DecodingOptions
) -> None:
    assert one.processor.languages == {}
    compare(one, options)


def test_each_language_is_detected_where_its_token_is_likeliest(many: Loaded) -> None:
    found = {
        transcribe(TorchGraphs(many.model), many.processor, clip(seed)).language for seed in range(CLIPS)
    }
    assert found <= set(LANGUAGES)
    features = [many.extractor(clip(seed), sampling_rate=RATE, return_tensors="pt") for seed in range(CLIPS)]
    theirs = {int(many.model.detect_language(made.input_features)) for made in features}
    assert {many.processor.languages[str(code)] for code in found} == theirs


def test_times_come_in_pairs_and_never_go_back(many: Loaded) -> None:
    processor = many.processor
    first = processor.first_time
    assert first is not None
    pairs = 0
    for seed in range(CLIPS):
        heard = Listener(TorchGraphs(many.model), processor, DecodingOptions(), "en").hear(clip(seed), True)
        assert heard is not None
        times = [token for token in heard.tokens if token >= first]
        assert times == sorted(times)
        assert heard.tokens[0] >= first
        pairs += sum(a >= first and b >= first for a, b in zip(heard.tokens, heard.tokens[1:], strict=False))
    assert pairs > 0
