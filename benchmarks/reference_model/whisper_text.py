"""The vocabulary of the Whisper-structured reference model: byte-level BPE with Whisper's special tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import AddedToken, GenerationConfig, WhisperTokenizer

TEXT_TOKENS = 512
# The order matters: Whisper's decoders find a language, a task or a timestamp by its place.
SPECIAL = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)
TIMESTAMP_STEP_S = 0.02


def build_tokenizer(texts: Sequence[str], window_s: float) -> WhisperTokenizer:
    """Whisper's tokenizer with `TEXT_TOKENS` byte-level tokens learned on `texts`.

    Every text gets a leading space, so that a word is the same token wherever it stands.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=TEXT_TOKENS, initial_alphabet=sorted(alphabet), show_progress=False)
    tokenizer.train_from_iterator((f" {text}" for text in texts), trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    vocabulary: dict[str, int] = learned["vocab"]
    merges = [tuple(pair) for pair in learned["merges"]]
    for token in SPECIAL:
        vocabulary[token] = len(vocabulary)
    result = WhisperTokenizer(vocab=vocabulary, merges=merges, language="en", task="transcribe")
    result.add_special_tokens({"additional_special_tokens": list(SPECIAL[1:])})
    stamps = [
        f"<|{index * TIMESTAMP_STEP_S:.2f}|>" for index in range(round(window_s / TIMESTAMP_STEP_S) + 1)
    ]
    result.add_tokens([AddedToken(stamp, special=False, normalized=False) for stamp in stamps])
    return result


def generation_config(tokenizer: WhisperTokenizer, longest: int) -> GenerationConfig:
    """What `generate` needs to know of the special tokens; an empty transcript is allowed."""
    number = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    end = number["<|endoftext|>"]
    return GenerationConfig(
        max_length=longest,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=number["<|startoftranscript|>"],
        is_multilingual=True,
        language="en",
        task="transcribe",
        lang_to_id={"<|en|>": number["<|en|>"]},
        task_to_id={"transcribe": number["<|transcribe|>"], "translate": number["<|translate|>"]},
        prev_sot_token_id=number["<|startofprev|>"],
        no_timestamps_token_id=number["<|notimestamps|>"],
        return_timestamps=False,
        begin_suppress_tokens=[],
        suppress_tokens=[],
    )
