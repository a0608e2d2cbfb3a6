"""Log-mel features: those of transformers' extractor at every length, silence and faint noise included."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import ParakeetFeatureExtractor, SeamlessM4TFeatureExtractor

from bitvox.compiler.frontend.features import LogMel
from bitvox.compiler.frontend.parakeet_features import CentredLogMel

MEL = LogMel(
    sampling_rate=16000, window=400, hop=160, points=512, bins=80, lowest=20, preemphasis=0.97, stacked=2
)


CENTRED = CentredLogMel(sampling_rate=16000, window=400, hop=160, points=512, bins=80, preemphasis=0.97)


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


@pytest.mark.parametrize("samples", [320, 479, 480, 4000, 16_001, 100_000])
@pytest.mark.parametrize(("level", "tolerance"), [(1e-4, 1e-2), (0.1, 5e-4), (1.0, 5e-4)])
def test_centred_features_are_those_of_transformers(samples: int, level: float, tolerance: float) -> None:
    """Of faint noise transformers, in float32, keeps fewer digits: it adds a constant to every energy."""
    clip = (level * np.random.default_rng(samples).standard_normal(samples)).astype(np.float32)
    inputs = ParakeetFeatureExtractor()(clip, sampling_rate=16000, return_tensors="np")
    expected = inputs.input_features[0][inputs.attention_mask[0]]
    features = CENTRED.features(clip)
    assert features.dtype == np.float32
    assert features.shape == expected.shape == CENTRED.shape(samples)
    np.testing.assert_allclose(features, expected, atol=tolerance)


def test_digital_silence_has_finite_features() -> None:
    np.testing.assert_allclose(CENTRED.features(np.zeros(4000, np.float32)), np.zeros((25, 80)), atol=1e-6)
