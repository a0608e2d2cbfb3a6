"""The log-mel front end is that of transformers' WhisperFeatureExtractor."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import WhisperFeatureExtractor

from bitvox.compiler.frontend.whisper_features import WindowLogMel

RATE = 16_000


def clips() -> dict[str, np.ndarray]:
    """What a recogniser may be given: noise, a tone, silence, a click, more than a window."""
    noise = np.random.default_rng(0).standard_normal(7 * RATE)
    click = np.zeros(RATE)
    click[100] = 1.0
    made = {
        "noise": 0.1 * noise[: 2 * RATE],
        "tone": np.sin(0.1 * np.arange(2 * RATE)),
        "silence": np.zeros(RATE),
        "click": click,
        "two samples": np.array([0.5, -0.5]),
        "longer than the window": 0.1 * noise,
    }
    return {name: samples.astype(np.float32) for name, samples in made.items()}


@pytest.mark.parametrize("bins", [80, 128])
@pytest.mark.parametrize("name", clips())
def test_features_are_those_of_transformers(bins: int, name: str) -> None:
    seconds, samples = 5, clips()[name]
    extractor = WhisperFeatureExtractor(feature_size=bins, chunk_length=seconds)
    mel = WindowLogMel(sampling_rate=RATE, points=400, hop=160, bins=bins, frames=100 * seconds)
    ours = mel.features(samples)
    theirs = extractor(samples, sampling_rate=RATE, return_tensors="np")["input_features"][0]
    assert ours.dtype == np.float32 and ours.shape == theirs.shape == (bins, 100 * seconds)
    # transformers transforms in float32, whose rounding is loud where there is one tone beside silence.
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    window = np.zeros((1, seconds * RATE), np.float32)
    window[0, : samples.size] = samples[: seconds * RATE]
    [exact] = extractor._np_extract_fbank_features(window, "cpu")
    np.testing.assert_allclose(ours, exact, atol=1e-6)
