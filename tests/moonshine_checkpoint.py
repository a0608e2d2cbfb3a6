"""A random Moonshine of a few thousand weights with a tokenizer of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer, decoders, normalizers
from tokenizers.models import BPE
from transformers import (
    GenerationConfig,
    MoonshineConfig,
    MoonshineForConditionalGeneration,
    PreTrainedTokenizerFast,
    Wav2Vec2FeatureExtractor,
)

from bitvox.compiler.frontend.decoding import DecodingOptions
from bitvox.compiler.frontend.token_processor import TokenProcessor

SPECIAL = ("<unk>", "<s>", "</s>")
MERGES = (("▁", "t"), ("h", "e"), ("▁t", "he"))
MOST_TOKENS = 20


def write_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Pieces of words, bytes for what has none, and special tokens, as on the hub."""
    pieces = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefghijklmnopqrstuvwxyz"]
    pieces += ["".join(pair) for pair in MERGES] + ["▁ü"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(BPE(vocabulary, list(MERGES), unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = dict(zip(("unk_token", "bos_token", "eos_token"), SPECIAL, strict=True))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.save_pretrained(folder)
    return fast


def write_checkpoint(folder: Path, width: int = 16, seed: int = 0, layers: int = 2, **changes: int) -> Path:
    """Random weights in the hub's layout; `layers` are those of the decoder."""
    tokenizer = write_tokenizer(folder)
    config = MoonshineConfig(
        vocab_size=len(tokenizer) + 2,  # the head has more outputs than the tokenizer has tokens
        hidden_size=width,
        intermediate_size=2 * width,
        encoder_num_hidden_layers=1,
        decoder_num_hidden_layers=layers,
        encoder_num_attention_heads=2,
        decoder_num_attention_heads=2,
        max_position_embeddings=48,
        initializer_range=0.4,
        **changes,
    )
    torch.manual_seed(seed)
    model = MoonshineForConditionalGeneration(config)
    with torch.no_grad():
        model.get_input_embeddings().weight[config.eos_token_id] *= 1.5  # texts end
    model.generation_config = GenerationConfig(
        decoder_start_token_id=config.decoder_start_token_id,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.eos_token_id,
        max_length=MOST_TOKENS + 1,
    )
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)
    return folder


def generate(
    model: MoonshineForConditionalGeneration,
    processor: TokenProcessor,
    samples: npt.NDArray[np.float32],
    options: DecodingOptions,
) -> list[int]:
    """Tokens that transformers writes, the first included, without what pads them."""
    [tokens] = model.generate(torch.from_numpy(samples)[None], num_beams=options.beams).tolist()
    while tokens[-1] == processor.end:
        tokens.pop()
    return tokens
