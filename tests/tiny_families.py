"""A random checkpoint of a few thousand weights for every family, and for the forms that differ in code."""

from __future__ import annotations

import dataclasses
import functools
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from transformers import (
    ASTFeatureExtractor,
    ParakeetFeatureExtractor,
    ParakeetTokenizer,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
)

from bitvox.compiler.frontend.loading import load_model
from bitvox.compiler.frontend.model import SpeechModel

VOCABULARY = ("<pad>", "<s>", "</s>", "<unk>", "|", "A", "B", "C")
PIECES = ("<unk>", "▁A", "B", "C", "▁", "▁BA", "AC", "<pad>")
LABELS = ("yes", "no", "zoom_in", "zoom_out", "stop")

_ENCODER: dict[str, Any] = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": (8, 8, 12),
    "conv_kernel": (10, 3, 2),
    "conv_stride": (5, 4, 4),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "pad_token_id": 0,
}
_LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
_CONFORMER = {"conv_depthwise_kernel_size": 5, "hidden_act": "swish", "max_source_positions": 3000}


_BERT = {
    "feature_projection_input_dim": 160,
    "conv_depthwise_kernel_size": 5,
    "left_max_position_embeddings": 7,
    "right_max_position_embeddings": 3,
    "max_source_positions": 3000,
    "output_hidden_size": 32,
}


@dataclass(frozen=True)
class TinyFamily:
    """A checkpoint to write: its class, its configuration, and how many sites it has."""

    architecture: str
    config: str
    sites: int
    changes: Mapping[str, Any] = field(default_factory=dict)

    def of_one_layer(self) -> TinyFamily:
        """The same with half of the layers."""
        return dataclasses.replace(self, changes={**self.changes, "num_hidden_layers": 1})

    @property
    def settings(self) -> dict[str, Any]:
        """What the configuration is made of."""
        if self.writes_pieces:
            return {"vocab_size": len(PIECES), "pad_token_id": 7, "encoder_config": dict(self.changes)}
        labels = {"id2label": dict(enumerate(LABELS)), "classifier_proj_size": 16}
        return {**_ENCODER, **({} if self.recogniser else labels), **self.changes}

    @property
    def extractor(self) -> Any:
        """transformers' own, which makes the model input."""
        if self.reads_patches:
            lengths = {"num_mel_bins": self.changes["num_mel_bins"], "max_length": self.changes["max_length"]}
            return ASTFeatureExtractor(**lengths)
        if self.writes_pieces:
            return ParakeetFeatureExtractor(feature_size=self.changes["num_mel_bins"])
        return SeamlessM4TFeatureExtractor() if self.reads_mel else Wav2Vec2FeatureExtractor()

    def read(self, samples: npt.NDArray[np.float32]) -> torch.Tensor:
        """The model input that transformers makes of samples, without frames that it masks."""
        # By default the extractor makes the number of frames even, which is for batches.
        options = {"pad_to_multiple_of": None} if "Bert" in self.architecture else {}
        inputs = self.extractor(samples, sampling_rate=16000, return_tensors="pt", **options)
        if "input_values" in inputs:
            return inputs["input_values"]
        return inputs["input_features"][:, inputs["attention_mask"][0].bool()]

    @property
    def reads_mel(self) -> bool:
        """Whether it reads log-mel features, and so has no convolutions over the waveform."""
        return "Bert" in self.architecture or self.writes_pieces or self.reads_patches

    @property
    def reads_patches(self) -> bool:
        """Whether it reads a window of features in patches."""
        return self.architecture.startswith("AST")

    @property
    def writes_pieces(self) -> bool:
        """Whether its tokens are pieces of words, and hold their spaces."""
        return "Parakeet" in self.architecture

    @property
    def recogniser(self) -> bool:
        """Whether it writes letters."""
        return self.architecture.endswith("ForCTC")

    def write(self, folder: Path) -> Path:
        """Random weights in the hub's layout."""
        torch.manual_seed(0)
        config = getattr(transformers, self.config)(**self.settings)
        module = getattr(transformers, self.architecture)(config)
        _stir(module)
        module.save_pretrained(folder)
        self.extractor.save_pretrained(folder)
        if not self.recogniser:
            return folder
        if self.writes_pieces:
            _write_pieces(folder)
            return folder
        vocabulary = {token: index for index, token in enumerate(VOCABULARY)}
        (folder / "vocab.json").write_text(json.dumps(vocabulary))
        Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), pad_token="<pad>").save_pretrained(folder)
        return folder


def _write_pieces(folder: Path) -> None:
    tokenizer = Tokenizer(BPE({token: index for index, token in enumerate(PIECES)}, [], unk_token="<unk>"))
    tokenizer.decoder = decoders.Metaspace()
    special = {"unk_token": "<unk>", "pad_token": "<pad>"}
    ParakeetTokenizer(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def _stir(module: torch.nn.Module) -> None:
    """Noise on what starts as all zeros or ones or very small: a bias that is lost would not be missed."""
    with torch.no_grad():
        for child in module.modules():
            if isinstance(child, torch.nn.Embedding):
                child.weight.normal_()
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point() and tensor.numel() > 1 and tensor.min() == tensor.max():
                tensor.add_(0.1 * torch.rand_like(tensor))


# convolutions + projection + positional convolutions + 2 * sites of a layer + head
TINY: dict[str, TinyFamily] = {
    "wav2vec2": TinyFamily("Wav2Vec2ForCTC", "Wav2Vec2Config", 3 + 1 + 1 + 2 * 6 + 1),
    "wav2vec2-large-adapter": TinyFamily(
        "Wav2Vec2ForCTC",
        "Wav2Vec2Config",
        3 + 1 + 1 + 2 * 6 + 2 + 1,
        {**_LARGE, "add_adapter": True, "num_adapter_layers": 2},
    ),
    "hubert": TinyFamily("HubertForCTC", "HubertConfig", 3 + 1 + 1 + 2 * 6 + 1),
    "hubert-large": TinyFamily("HubertForCTC", "HubertConfig", 3 + 1 + 1 + 2 * 6 + 1, _LARGE),
    "hubert-batch-norm": TinyFamily(
        "HubertForCTC",
        "HubertConfig",
        3 + 1 + 1 + 2 * 6 + 1,
        {"conv_pos_batch_norm": True, "feat_proj_layer_norm": False},
    ),
    "wavlm": TinyFamily(
        "WavLMForCTC", "WavLMConfig", 3 + 1 + 1 + 2 * 7 + 1, {"num_buckets": 32, "max_bucket_distance": 40}
    ),
    "wavlm-large": TinyFamily("WavLMForCTC", "WavLMConfig", 3 + 1 + 1 + 2 * 7 + 1, _LARGE),
    "data2vec": TinyFamily(
        "Data2VecAudioForCTC",
        "Data2VecAudioConfig",
        3 + 1 + 2 + 2 * 6 + 1,
        {"num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 5},
    ),
    "conformer-relative": TinyFamily(
        "Wav2Vec2ConformerForCTC", "Wav2Vec2ConformerConfig", 3 + 1 + 2 * 12 + 1, _CONFORMER
    ),
    "conformer-rotary": TinyFamily(
        "Wav2Vec2ConformerForCTC",
        "Wav2Vec2ConformerConfig",
        3 + 1 + 2 * 11 + 1,
        {**_CONFORMER, **_LARGE, "position_embeddings_type": "rotary"},
    ),
    "wav2vec2-keywords": TinyFamily(
        "Wav2Vec2ForSequenceClassification", "Wav2Vec2Config", 3 + 1 + 1 + 2 * 6 + 2
    ),
    "wav2vec2-weighted-keywords": TinyFamily(
        "Wav2Vec2ForSequenceClassification",
        "Wav2Vec2Config",
        3 + 1 + 1 + 2 * 6 + 2,
        {"use_weighted_layer_sum": True},
    ),
    "hubert-keywords": TinyFamily(
        "HubertForSequenceClassification",
        "HubertConfig",
        3 + 1 + 1 + 2 * 6 + 2,
        {**_LARGE, "use_weighted_layer_sum": True},
    ),
    "wavlm-keywords": TinyFamily(
        "WavLMForSequenceClassification",
        "WavLMConfig",
        3 + 1 + 1 + 2 * 7 + 2,
        {"use_weighted_layer_sum": True},
    ),
    "data2vec-keywords": TinyFamily(
        "Data2VecAudioForSequenceClassification",
        "Data2VecAudioConfig",
        3 + 1 + 2 + 2 * 6 + 2,
        {"num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 5},
    ),
    "conformer-keywords": TinyFamily(
        "Wav2Vec2ConformerForSequenceClassification",
        "Wav2Vec2ConformerConfig",
        3 + 1 + 2 * 12 + 2,
        {**_CONFORMER, "use_weighted_layer_sum": True},
    ),
    "bert": TinyFamily("Wav2Vec2BertForCTC", "Wav2Vec2BertConfig", 1 + 2 * 11 + 1, _BERT),
    "bert-adapter": TinyFamily(
        "Wav2Vec2BertForCTC",
        "Wav2Vec2BertConfig",
        1 + 2 * 11 + 2 + 1 + 8 + 1,
        {
            **_BERT,
            "add_adapter": True,
            "num_adapter_layers": 1,
            "output_hidden_size": 24,
            "use_intermediate_ffn_before_adapter": True,
        },
    ),
    "bert-relative": TinyFamily(
        "Wav2Vec2BertForCTC",
        "Wav2Vec2BertConfig",
        1 + 2 * 12 + 1,
        {**_BERT, "position_embeddings_type": "relative"},
    ),
    "bert-rotary": TinyFamily(
        "Wav2Vec2BertForCTC",
        "Wav2Vec2BertConfig",
        1 + 2 * 11 + 1,
        {**_BERT, "position_embeddings_type": "rotary"},
    ),
}


_PARAKEET = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_kernel_size": 5,
    "subsampling_factor": 4,
    "subsampling_conv_channels": 8,
    "num_mel_bins": 40,
}
# mixing of the channels + projection + 2 * sites of a layer + head
TINY["parakeet"] = TinyFamily("ParakeetForCTC", "ParakeetCTCConfig", 1 + 1 + 2 * 12 + 1, _PARAKEET)
TINY["parakeet-bare"] = TinyFamily(
    "ParakeetForCTC",
    "ParakeetCTCConfig",
    2 + 1 + 2 * 12 + 1,
    {
        **_PARAKEET,
        "subsampling_factor": 8,
        "attention_bias": False,
        "convolution_bias": False,
        "scale_input": False,
    },
)

# patches + 2 * sites of a layer + head
TINY["spectrogram"] = TinyFamily(
    "ASTForAudioClassification",
    "ASTConfig",
    1 + 2 * 6 + 1,
    {
        "num_mel_bins": 40,
        "max_length": 90,
        "patch_size": 8,
        "frequency_stride": 5,
        "time_stride": 6,
    },
)

# One for each kind of graph: norms of groups and of layers, gated and relative positions, both front ends.
_BRIEF = (
    "wav2vec2",
    "wavlm",
    "conformer-relative",
    "wav2vec2-weighted-keywords",
    "bert-adapter",
    "parakeet",
    "spectrogram",
)
WALKED = tuple(name if name in _BRIEF else pytest.param(name, marks=pytest.mark.slow) for name in TINY)
"""The names of all: for tests that compile each, of which those that differ little from others are slow."""


@functools.cache
def tiny_family(name: str, one_layer: bool = False) -> SpeechModel:
    """One of them, loaded; shared between tests, which must not change it."""
    family = TINY[name].of_one_layer() if one_layer else TINY[name]
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(False):
        return load_model(family.write(Path(folder)))
