"""A wav2vec2 checkpoint with random weights, in the hub's layout: the size of the real one, from nothing."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

# The 32 tokens of facebook/wav2vec2-base-960h, in its order.
_VOCABULARY = ("<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ")


def write_random_checkpoint(folder: Path, config: Wav2Vec2Config | None = None, seed: int = 0) -> int:
    """Write `Wav2Vec2ForCTC` with seeded random weights, by default wav2vec2-base; returns its parameters."""
    torch.manual_seed(seed)
    config = config or Wav2Vec2Config()
    config.vocab_size = len(_VOCABULARY)
    model = Wav2Vec2ForCTC(config)
    model.save_pretrained(folder)
    table = {token: index for index, token in enumerate(_VOCABULARY)}
    (folder / "vocab.json").write_text(json.dumps(table))
    Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), pad_token="<pad>").save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())
