"""Log-mel features: those of transformers' extractor at every length, silence and faint noise included."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import SeamlessM4TFeatureExtractor

from bitvox.compiler.frontend.features import LogMel

MEL = LogMel(
    sampling_rate=16000, window=400, hop=160, points=512, bins=80, lowest=20, preemphasis=0.97, stacked=2
)


@pytest.mark.parametrize("samples", [560, 561, 719, 720, 880, 4000, 16_001, 100_000])
@pytest.mark.parametrize("level", [0.0, 1e-4, 0.1, 1.0])
def test_features_are_those_of_transformers(samples: int, level: float) -> None:
    clip = (level * np.random.default_rng(samples).standard_normal(samples)).astype(np.float32)
    options = {"sampling_rate": 16000, "pad_to_multiple_of": None, "return_tensors": "np"}
    expected = SeamlessM4TFeatureExtractor()(clip, **options).input_features[0]
    features = MEL.features(clip)
    assert features.dtype == np.float32
    assert features.shape == expected.shape == MEL.shape(samples)
    np.testing.assert_allclose(features, expected, atol=5e-4)


def test_one_frame_takes_as_many_samples_as_it_says() -> None:
    assert MEL.minimum_samples == 560
    assert (MEL.shape(559), MEL.shape(560), MEL.shape(879), MEL.shape(880)) == (
        (0, 160),
        (1, 160),
        (1, 160),
        (2, 160),
    )
