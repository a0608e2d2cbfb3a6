"""A random Whisper of a few thousand weights with a tokenizer of its own, and its graphs in torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import AddedToken
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)
from transformers.cache_utils import EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from bitvox.compiler.frontend.decoding import DecodingOptions
from bitvox.compiler.frontend.token_processor import TokenProcessor

FloatArray = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int64]

SECONDS = 2
LANGUAGES = ("en", "de", "zh")
MERGES = (("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("Ã", "¼"), ("o", "n"))


def special_tokens(languages: Sequence[str]) -> list[str]:
    """Whisper's, in its order."""
    choices = [f"<|{code}|>" for code in languages] + ["<|translate|>", "<|transcribe|>"]
    rest = ["<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    return ["<|endoftext|>", "<|startoftranscript|>", *choices, *rest]


def write_tokenizer(folder: Path, languages: Sequence[str] = LANGUAGES) -> WhisperTokenizer:
    """A tokenizer of bytes, a few merges, and the special tokens; times as on the hub."""
    spelled = sorted(ByteLevel.alphabet()) + ["".join(pair) for pair in MERGES]
    vocabulary = {token: number for number, token in enumerate(spelled)}
    tokenizer = WhisperTokenizer(vocab=vocabulary, merges=list(MERGES))
    tokenizer.add_special_tokens({"additional_special_tokens": special_tokens(languages)[1:]})
    times = [AddedToken(f"<|{0.02 * step:.2f}|>", special=False) for step in range(50 * SECONDS + 1)]
    tokenizer.add_tokens(times)
    tokenizer.save_pretrained(folder)
    return tokenizer


def write_checkpoint(
    folder: Path, languages: Sequence[str] = LANGUAGES, seed: int = 0, width: int = 16, layers: int = 2
) -> Path:
    """Random weights in the hub's layout; of several languages, or of one where none is named.

    `layers` are those of the decoder.
    """
    tokenizer = write_tokenizer(folder, languages)
    token = tokenizer.convert_tokens_to_ids
    special = [token(name) for name in special_tokens(languages)]
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        num_mel_bins=16,
        encoder_layers=1,
        decoder_layers=layers,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=2 * width,
        decoder_ffn_dim=2 * width,
        d_model=width,
        max_source_positions=50 * SECONDS,
        max_target_positions=48,
        decoder_start_token_id=token("<|startoftranscript|>"),
        pad_token_id=token("<|endoftext|>"),
        bos_token_id=token("<|endoftext|>"),
        eos_token_id=token("<|endoftext|>"),
        init_std=0.5,
    )
    torch.manual_seed(seed)
    model = WhisperForConditionalGeneration(config)
    with torch.no_grad():
        weight = model.get_input_embeddings().weight
        weight[token("<|endoftext|>")] = 1.1 * weight[324]  # a time that is often written: texts end
    model.generation_config = generation_config(config, tokenizer, languages, special)
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=16, chunk_length=SECONDS).save_pretrained(folder)
    return folder


def generation_config(
    config: WhisperConfig, tokenizer: WhisperTokenizer, languages: Sequence[str], special: Sequence[int]
) -> GenerationConfig:
    """As the hub's checkpoints have it."""
    token = tokenizer.convert_tokens_to_ids
    choices = {
        "lang_to_id": {f"<|{code}|>": token(f"<|{code}|>") for code in languages},
        "task_to_id": {task: token(f"<|{task}|>") for task in ("transcribe", "translate")},
    }
    return GenerationConfig(
        decoder_start_token_id=config.decoder_start_token_id,
        pad_token_id=config.pad_token_id,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        suppress_tokens=[7, 8, *special[1:]],
        begin_suppress_tokens=[token("Ġ"), config.eos_token_id],
        no_timestamps_token_id=token("<|notimestamps|>"),
        prev_sot_token_id=token("<|startofprev|>"),
        max_initial_timestamp_index=30,
        max_length=40,
        is_multilingual=bool(languages),
        **(choices if languages else {}),
    )


def generate(
    model: WhisperForConditionalGeneration,
    processor: TokenProcessor,
    samples: FloatArray,
    options: DecodingOptions,
) -> list[int]:
    """Tokens that transformers writes, prompt included, without what pads them."""
    extractor = WhisperFeatureExtractor(feature_size=model.config.num_mel_bins, chunk_length=SECONDS)
    features = extractor(samples, sampling_rate=16_000, return_tensors="pt").input_features
    asked = {"language": options.language, "task": options.task} if processor.languages else {}
    limit = {"max_new_tokens": options.max_tokens} if options.max_tokens else {}
    [tokens] = model.generate(
        features,
        return_timestamps=options.timestamps,
        num_beams=options.beams,
        force_unique_generate_call=True,
        **asked,
        **limit,
    ).tolist()
    while tokens[-1] == processor.end:
        tokens.pop()
    return tokens


@dataclass(frozen=True)
class TorchState:
    """What `TorchGraphs` carries from step to step."""

    encoded: torch.Tensor
    cache: EncoderDecoderCache | None


@dataclass(frozen=True)
class TorchGraphs:
    """`DecoderGraphs` by transformers' own module and cache."""

    model: WhisperForConditionalGeneration
    max_rows: int = 8

    @torch.inference_mode()
    def encode(self, features: FloatArray) -> TorchState:
        """One row."""
        return TorchState(self.model.model.encoder(torch.from_numpy(features)[None]).last_hidden_state, None)

    @torch.inference_mode()
    def step(self, state: TorchState, tokens: Tokens) -> tuple[FloatArray, TorchState]:
        """Logits of the last token."""
        output = self.model(
            encoder_outputs=BaseModelOutput(state.encoded),
            decoder_input_ids=torch.from_numpy(tokens),
            past_key_values=state.cache,
            use_cache=True,
        )
        return output.logits[:, -1].numpy().copy(), TorchState(state.encoded, output.past_key_values)

    @torch.inference_mode()
    def reorder(self, state: TorchState, rows: Tokens) -> TorchState:
        """Rows left out, repeated and swapped."""
        chosen = torch.from_numpy(rows)
        if state.cache is not None:
            state.cache.reorder_cache(chosen)
        return TorchState(state.encoded[chosen], state.cache)
