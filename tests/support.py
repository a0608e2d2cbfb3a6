"""A checkpoint of a few thousand weights, clips of noise, and byte costs that tests can compute by hand."""

from __future__ import annotations

import functools
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC
from typer.testing import CliRunner

from bitvox.cli import app
from bitvox.compiler.frontend.loading import load_model
from bitvox.compiler.frontend.model import FloatArray, Site, SpeechModel
from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.plan import Activations, Granularity

VOCABULARY = ("<pad>", "<s>", "</s>", "<unk>", "|", "A", "B", "C")


def write_tiny_checkpoint(folder: Path, conv_bias: bool = False, large: bool = False) -> Path:
    """Write a random Wav2Vec2ForCTC in the hub's layout.

    Group norm first and post-norm as wav2vec2-base; `large`: layer norms and pre-norm as wav2vec2-large-lv60.
    """
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=(8, 8, 12),
        conv_kernel=(10, 3, 2),
        conv_stride=(5, 4, 4),
        conv_bias=conv_bias,
        feat_extract_norm="layer" if large else "group",
        do_stable_layer_norm=large,
        num_feat_extract_layers=3,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        pad_token_id=0,
    )
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    vocabulary = {token: index for index, token in enumerate(VOCABULARY)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), pad_token="<pad>").save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


@functools.cache
def tiny_model(conv_bias: bool = False, large: bool = False) -> SpeechModel:
    """That checkpoint, loaded; shared between tests, which must not change it."""
    # A test may ask for it first inside inference mode; weights made there could have no gradients.
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(False):
        return load_model(write_tiny_checkpoint(Path(folder), conv_bias, large))


@functools.cache
def reference_model() -> SpeechModel:
    """The reference model that the package ships."""
    with torch.inference_mode(False):
        return load_model("reference-ctc")


def noise_clips(count: int = 3, samples: int = 4000, seed: int = 0) -> tuple[FloatArray, ...]:
    """Clips [T] of white noise, each a little longer than the one before."""
    generator = np.random.default_rng(seed)
    return tuple(
        (0.1 * generator.standard_normal(samples + 100 * index)).astype(np.float32) for index in range(count)
    )


@dataclass(frozen=True)
class PackedCosts:
    """Exactly n bits per weight and two bytes per scale; `fixed` for everything else."""

    fixed: int = 1000

    def site(self, site: Site, bits: int | None, granularity: Granularity, activations: Activations) -> int:
        """Bytes of one site."""
        if bits is None:
            return 2 * site.weights
        return (site.weights * bits + 7) // 8 + 2 * (site.channels if granularity == "channel" else 1)


def tiny_context(conv_bias: bool = False) -> PassContext:
    """The tiny model with three clips of noise."""
    return PassContext(tiny_model(conv_bias), noise_clips(), PackedCosts())


def run(*words: object) -> dict[str, Any]:
    """Run `bitvox WORDS --json` and return the one document that it prints."""
    result = CliRunner().invoke(app, [*map(str, words), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document
