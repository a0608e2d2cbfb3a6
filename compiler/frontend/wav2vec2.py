"""wav2vec 2.0 (Baevski et al. 2020)."""

from __future__ import annotations

from bitvox.compiler.frontend.waveform import classifier_family, ctc_family

FAMILIES = (ctc_family("Wav2Vec2ForCTC"), classifier_family("Wav2Vec2ForSequenceClassification"))
