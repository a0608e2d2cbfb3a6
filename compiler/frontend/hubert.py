"""HuBERT (Hsu et al. 2021): wav2vec 2.0's network, trained otherwise."""

from __future__ import annotations

from bitvox.compiler.frontend.waveform import classifier_family, ctc_family

FAMILIES = (ctc_family("HubertForCTC"), classifier_family("HubertForSequenceClassification"))
