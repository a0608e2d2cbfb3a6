"""data2vec for speech (Baevski et al. 2022): five small positional convolutions in place of one."""

from __future__ import annotations

from bitvox.compiler.frontend.waveform import classifier_family, ctc_family

FAMILIES = (ctc_family("Data2VecAudioForCTC"), classifier_family("Data2VecAudioForSequenceClassification"))
