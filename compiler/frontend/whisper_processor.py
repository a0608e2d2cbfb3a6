"""What turns a window of samples into Whisper's features and its tokens into text (Radford et al. 2022)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitvox.compiler.frontend.token_processor import TokenProcessor
from bitvox.compiler.frontend.whisper_features import WindowLogMel

FloatArray = npt.NDArray[np.float32]


class WhisperProcessor(TokenProcessor):
    """Features, tokens and prompts of one checkpoint; `normalise` has no part in it.

    Attributes:
        mel: How a window of samples becomes features.
    """

    mel: WindowLogMel

    @property
    def window_samples(self) -> int:
        """Samples of a window."""
        return self.mel.samples

    def input_shape(self, samples: int) -> tuple[int, ...]:
        """Shape [mels, frames] of the features of a window, however many samples it has."""
        return self.mel.bins, self.mel.frames

    def features(self, samples: FloatArray) -> FloatArray:
        """Features [mels, frames] of the first window of samples [T] at `sampling_rate`."""
        return self.mel.features(samples)
