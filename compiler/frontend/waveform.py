"""Checkpoints that read the waveform: what wav2vec 2.0 and its relatives share (Baevski et al. 2020).

A convolutional feature extractor, a transformer encoder, and a head that writes letters or names a label. A
relative's own file names its classes and rewrites what is its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from transformers import PreTrainedConfig, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor
from transformers.activations import GELUActivation
from transformers.utils.logging import (
    disable_progress_bar,
    get_verbosity,
    set_verbosity,
    set_verbosity_error,
)

from bitvox.compiler.frontend.attention import ATTENTION
from bitvox.compiler.frontend.family import Family
from bitvox.compiler.frontend.model import Role
from bitvox.compiler.frontend.processor import AnyProcessor, ClassifierProcessor, CTCProcessor
from bitvox.errors import InputError

Rewrite = Callable[[torch.nn.Module], None]

_ATTENTION_INPUT = re.compile(r"\.(q_proj|k_proj|v_proj|linear_q|linear_k|linear_v)$")


def ctc_family(architecture: str, rewrite: Rewrite | None = None) -> Family:
    """A family of waveform in, CTC logits out.

    Args:
        architecture: Class name in transformers.
        rewrite: Changes the prepared encoder in place where it cannot be traced, or not site by site.
    """
    return Family(
        architecture=architecture,
        kind="ctc",
        load=partial(_load_ctc, architecture),
        wrap=partial(_wrap_ctc, rewrite=rewrite),
        role=_role,
        share_group=_share_group,
        activation=_activation,
    )


def classifier_family(architecture: str, rewrite: Rewrite | None = None) -> Family:
    """A family of waveform in, logits of labels out; arguments as in `ctc_family`."""
    return Family(
        architecture=architecture,
        kind="classifier",
        load=partial(_load_classifier, architecture),
        wrap=partial(_wrap_classifier, rewrite=rewrite),
        role=_role,
        share_group=_share_group,
        activation=_activation,
    )


class _SamplesToLogits(torch.nn.Module):
    """Takes samples alone and returns the bare logits, so that a trace has one input and one output."""

    def __init__(self, name: str, encoder: torch.nn.Module, lm_head: torch.nn.Module) -> None:
        super().__init__()
        self._name = name
        self.add_module(name, encoder)
        self.lm_head = lm_head

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Samples [B, T] -> logits [B, frames, vocabulary]."""
        return self.lm_head(self.get_submodule(self._name)(samples).last_hidden_state)


class _SamplesToLabels(torch.nn.Module):
    """Takes samples alone and returns the logits of the labels, as those of one frame."""

    def __init__(self, name: str, encoder: torch.nn.Module, head: Any) -> None:
        super().__init__()
        self._name = name
        self.add_module(name, encoder)
        self.projector, self.classifier = head.projector, head.classifier
        weighted = head.config.use_weighted_layer_sum
        self.layers = torch.softmax(head.layer_weights.detach(), dim=-1).tolist() if weighted else None

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Samples [B, T] -> logits [B, 1, labels]."""
        encoder = self.get_submodule(self._name)
        if self.layers is None:
            hidden = encoder(samples).last_hidden_state
        else:
            states = encoder(samples, output_hidden_states=True).hidden_states
            hidden = sum(weight * state for weight, state in zip(self.layers, states, strict=True))
        # The mean of the frames' logits is the logits of their mean, and the head's site stays one that runs
        # over frames: of a single row ONNX Runtime makes a Gemm, which it computes in float.
        return self.classifier(self.projector(hidden)).mean(dim=1, keepdim=True)


def _wrap_ctc(module: torch.nn.Module, rewrite: Rewrite | None) -> torch.nn.Module:
    name, encoder = _encoder(module, rewrite)
    return _SamplesToLogits(name, encoder, module.get_submodule("lm_head"))


def _wrap_classifier(module: torch.nn.Module, rewrite: Rewrite | None) -> torch.nn.Module:
    return _SamplesToLabels(*_encoder(module, rewrite), module)


def _encoder(module: torch.nn.Module, rewrite: Rewrite | None) -> tuple[str, torch.nn.Module]:
    name = _encoder_name(module)
    encoder = module.get_submodule(name)
    if rewrite is not None:
        rewrite(encoder)
    return name, encoder


def _encoder_name(module: torch.nn.Module) -> str:
    """The name that transformers gives the encoder in its model classes, e.g. `wav2vec2`."""
    return str(module.base_model_prefix)


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No progress bar and no report of the tensors: what is wrong with them is said in one line."""
    disable_progress_bar()
    before = get_verbosity()
    set_verbosity_error()
    try:
        yield
    finally:
        set_verbosity(before)


def load_weights(architecture: str, folder: Path) -> Any:
    """The transformers module of that class, float32; InputError where the folder's tensors do not fit."""
    with _quiet_transformers():
        loaded: Any = getattr(transformers, architecture).from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation=ATTENTION,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # transformers' own error for them names nothing
            output_loading_info=True,
        )
    module, report = loaded
    for name, stored, expected in sorted(report["mismatched_keys"]):
        raise InputError(
            f"model '{folder}': the tensor {name} has shape {list(stored)}, "
            f"config.json asks for {list(expected)}"
        )
    # Many published checkpoints lack it: it replaces masked frames in training.
    training_only = {f"{_encoder_name(module)}.masked_spec_embed"}
    missing = sorted(set(report["missing_keys"]) - training_only)
    if missing:
        raise InputError(f"model '{folder}': the weights lack {missing[0]} ({len(missing)} tensors in all)")
    for name in report["missing_keys"]:
        # Random where the checkpoint lacks it, and the fingerprint must not be.
        module.get_parameter(name).data.zero_()
    return module


def _load_ctc(architecture: str, folder: Path) -> tuple[torch.nn.Module, AnyProcessor]:
    module = load_weights(architecture, folder)
    config = module.config
    return module, CTCProcessor(**ctc_tokens(folder, config), **_front_end(folder, config))


def _load_classifier(architecture: str, folder: Path) -> tuple[torch.nn.Module, AnyProcessor]:
    module = load_weights(architecture, folder)
    config = module.config
    return module, ClassifierProcessor(**_front_end(folder, config), labels=class_labels(folder, config))


def class_labels(folder: Path, config: Any) -> tuple[str, ...]:
    """The label of each output; InputError where two have the same."""
    labels = tuple(config.id2label[index] for index in range(config.num_labels))
    if len(set(labels)) < len(labels):
        raise InputError(f"model '{folder}': id2label in config.json gives one label to two outputs")
    return labels


def require_extractor(folder: Path) -> None:
    """InputError where the folder does not say how audio becomes model input."""
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        raise InputError(f"model '{folder}': no preprocessor_config.json; the sampling rate is not known")


def _front_end(folder: Path, config: PreTrainedConfig) -> dict[str, Any]:
    """What every processor of a waveform has."""
    require_extractor(folder)
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(folder, local_files_only=True)
    return {
        "sampling_rate": extractor.sampling_rate,
        "normalise": extractor.do_normalize,
        "minimum_samples": _receptive_field(config),
        "samples_per_frame": _samples_per_frame(config),
    }


def ctc_tokens(folder: Path, config: PreTrainedConfig) -> dict[str, Any]:
    """What every processor that writes text knows of its tokens: the fields that `CTCProcessor` adds."""
    if not (folder / "vocab.json").is_file():
        raise InputError(f"model '{folder}': no vocab.json; a CTC checkpoint needs its tokenizer's files")
    tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(folder, local_files_only=True)
    tokens = {index: token for token, index in tokenizer.get_vocab().items()}
    outputs = int(config.vocab_size or 0)
    if config.pad_token_id is None or not 0 <= config.pad_token_id < outputs:
        raise InputError(
            f"model '{folder}': pad_token_id {config.pad_token_id} is the CTC blank and must be one of the "
            f"head's {outputs} outputs"
        )
    if not set(range(outputs)) <= set(tokens):
        raise InputError(
            f"model '{folder}': the head has {outputs} outputs, vocab.json names {len(tokens)} tokens"
        )
    special = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token, tokenizer.pad_token)
    return {
        "vocabulary": tuple(tokens[i] for i in range(outputs)),
        "blank": config.pad_token_id,
        "word_delimiter": tokenizer.word_delimiter_token,
        "special": tuple(token for token in special if token is not None),
    }


def _receptive_field(config: PreTrainedConfig) -> int:
    samples = 1
    for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples


def adapter_stride(config: PreTrainedConfig) -> int:
    """Frames of the encoder for one frame of logits."""
    stacked = getattr(config, "add_adapter", False)
    return int(config.adapter_stride**config.num_adapter_layers) if stacked else 1


def _samples_per_frame(config: PreTrainedConfig) -> int:
    return math.prod(config.conv_stride) * adapter_stride(config)


def _role(name: str) -> Role:
    if name in ("lm_head", "classifier"):
        return "head"
    if name.endswith("conv_layers.0.conv"):
        return "input_conv"
    if "pos_conv_embed" in name:
        return "positional_conv"
    return "conv" if ".conv" in name else "linear"


def _share_group(name: str) -> str:
    return _ATTENTION_INPUT.sub(".qkv", name)


def _activation(model: torch.nn.Module, name: str) -> Literal["gelu"] | None:
    """Convolutions hand their output straight to a GELU, unless a norm stands between."""
    parent = model.get_submodule(name.rpartition(".")[0])
    if isinstance(getattr(parent, "activation", None), GELUActivation) and not hasattr(parent, "layer_norm"):
        return "gelu"
    return None
