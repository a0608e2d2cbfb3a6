"""A wav2vec2 checkpoint with random weights, in the hub's layout: the size of the real one, from nothing."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import (
    AutoModelForCTC,
    Wav2Vec2Config,
    Wav2Vec2ConformerConfig,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
)

# The 32 tokens of facebook/wav2vec2-base-960h, in its order.
_VOCABULARY = ("<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ")


def write_random_checkpoint(
    folder: Path, config: Wav2Vec2Config | Wav2Vec2ConformerConfig | None = None, seed: int = 0
) -> int:
    """Write a recogniser with seeded random weights, by default wav2vec2-base; returns its parameters."""
    torch.manual_seed(seed)
    config = config or Wav2Vec2Config()
    config.vocab_size = len(_VOCABULARY)
    model = AutoModelForCTC.from_config(config)
    model.save_pretrained(folder)
    table = {token: index for index, token in enumerate(_VOCABULARY)}
    (folder / "vocab.json").write_text(json.dumps(table))
    Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), pad_token="<pad>").save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def conformer_large() -> Wav2Vec2ConformerConfig:
    """As facebook/wav2vec2-conformer-rel-pos-large is configured."""
    return Wav2Vec2ConformerConfig(
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        hidden_act="swish",
        feat_extract_norm="layer",
        conv_bias=True,
        position_embeddings_type="relative",
    )
