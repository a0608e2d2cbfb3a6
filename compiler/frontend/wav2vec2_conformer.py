"""wav2vec 2.0 with a conformer encoder (Gulati et al. 2020), its positions relative or rotary."""

from __future__ import annotations

from typing import Any

import torch

from bitvox.compiler.frontend.positions import rewrite_positions
from bitvox.compiler.frontend.prepare import folded_batch_norm
from bitvox.compiler.frontend.waveform import classifier_family, ctc_family


def _rewrite(model: Any) -> None:
    encoder = model.encoder
    encoder.pos_conv_embed = None  # in every checkpoint, and never run
    rewrite_positions(model)
    for layer in encoder.layers:
        block = layer.conv_module
        block.depthwise_conv = folded_batch_norm(block.depthwise_conv, block.batch_norm)
        block.batch_norm = torch.nn.Identity()


FAMILIES = (
    ctc_family("Wav2Vec2ConformerForCTC", _rewrite),
    classifier_family("Wav2Vec2ConformerForSequenceClassification", _rewrite),
)
