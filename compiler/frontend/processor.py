"""What turns samples into features and logits into text, in NumPy, so that a bundle needs no torch to run."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

FloatArray = npt.NDArray[np.float32]

# Wav2Vec2FeatureExtractor's documented constant in (x - mean) / sqrt(var + 1e-7).
_VARIANCE_FLOOR = 1e-7


class Processor(BaseModel):
    """Feature normalisation and greedy CTC decoding of one checkpoint (a file boundary: stored in the
    manifest).

    Attributes:
        sampling_rate: Samples per second that the model was trained on.
        normalise: Whether a clip is brought to zero mean and unit variance first.
        vocabulary: Token of each logit, in order.
        blank: Index of the CTC blank.
        word_delimiter: Token that stands for a space.
        special: Tokens that never appear in text.
        minimum_samples: Shortest clip that yields one frame.
        samples_per_frame: Product of the strides of the feature extractor.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sampling_rate: int
    normalise: bool
    vocabulary: tuple[str, ...]
    blank: int
    word_delimiter: str
    special: tuple[str, ...]
    minimum_samples: int
    samples_per_frame: int

    def features(self, samples: FloatArray) -> FloatArray:
        """Model input [T] from samples [T] at `sampling_rate`."""
        if not self.normalise:
            return np.ascontiguousarray(samples, dtype=np.float32)
        centred = samples.astype(np.float64) - samples.mean(dtype=np.float64)
        return (centred / np.sqrt(np.mean(centred**2) + _VARIANCE_FLOOR)).astype(np.float32)

    def decode(self, logits: FloatArray) -> str:
        """Greedy CTC transcript of logits [frames, vocabulary] (Graves et al. 2006: collapse repeats, drop
        blanks)."""
        best = logits.argmax(axis=-1)
        kept = best[np.insert(best[1:] != best[:-1], 0, True)] if best.size else best
        tokens = (self.vocabulary[i] for i in kept if i != self.blank)
        text = "".join(" " if t == self.word_delimiter else t for t in tokens if t not in self.special)
        return " ".join(text.split())
