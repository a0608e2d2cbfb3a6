"""A Whisper checkpoint with random weights, in the hub's layout: the size of the real one, from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

Size = Literal["tiny", "base", "small"]

# Width, layers of encoder and of decoder, heads (Radford et al. 2022, table 1).
_SIZES: dict[Size, tuple[int, int, int]] = {"tiny": (384, 4, 6), "base": (512, 6, 8), "small": (768, 12, 12)}
_MOST_TOKENS = 32  # random weights never end a text


def write_random_whisper(folder: Path, size: Size, seed: int = 0) -> int:
    """Write `WhisperForConditionalGeneration` with seeded random weights; returns its parameters.

    It has the full head of 51,865 tokens; its tokenizer spells the 256 bytes and the special tokens alone.
    """
    width, layers, heads = _SIZES[size]
    tokenizer = _write_tokenizer(folder)
    names = ("<|startoftranscript|>", "<|endoftext|>", "<|notimestamps|>")
    ids = tokenizer.get_vocab()
    start, end, untimed = (ids[name] for name in names)
    torch.manual_seed(seed)
    config = WhisperConfig(
        d_model=width,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        decoder_start_token_id=start,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        suppress_tokens=[],
        begin_suppress_tokens=[],
    )
    model = WhisperForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        decoder_start_token_id=start,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        no_timestamps_token_id=untimed,
        max_new_tokens=_MOST_TOKENS,
        is_multilingual=False,
    )
    model.save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def _write_tokenizer(folder: Path) -> WhisperTokenizer:
    vocabulary = {token: number for number, token in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = WhisperTokenizer(vocab=vocabulary, merges=[])
    special = ["<|startoftranscript|>", "<|nospeech|>", "<|notimestamps|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokenizer.save_pretrained(folder)
    return tokenizer
