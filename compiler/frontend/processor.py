"""What turns samples into features and logits into text, in NumPy, so that a bundle needs no torch to run.

A file boundary: stored in the manifest.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Discriminator, Tag

from bitvox.compiler.frontend.features import LogMel
from bitvox.compiler.frontend.functions import FunctionProcessor
from bitvox.compiler.frontend.parakeet_features import CentredLogMel
from bitvox.compiler.frontend.processor_base import Processor
from bitvox.compiler.frontend.spectrogram_features import PaddedLogMel
from bitvox.compiler.frontend.token_processor import WaveformTokenProcessor
from bitvox.compiler.frontend.whisper_processor import WhisperProcessor

FloatArray = npt.NDArray[np.float32]


class CTCProcessor(Processor):
    """Greedy CTC decoding.

    Attributes:
        vocabulary: Token of each logit, in order.
        blank: Index of the CTC blank.
        word_delimiter: Token that stands for a space.
        special: Tokens that never appear in text.
    """

    vocabulary: tuple[str, ...]
    blank: int
    word_delimiter: str
    special: tuple[str, ...]

    @property
    def outputs(self) -> int:
        """Number of tokens."""
        return len(self.vocabulary)

    def decode(self, logits: FloatArray) -> str:
        """Transcript of logits [frames, vocabulary] (Graves et al. 2006: collapse repeats, drop blanks)."""
        best = logits.argmax(axis=-1)
        kept = best[np.insert(best[1:] != best[:-1], 0, True)] if best.size else best
        tokens = (self.vocabulary[i] for i in kept if i != self.blank)
        text = "".join(" " if t == self.word_delimiter else t for t in tokens if t not in self.special)
        return " ".join(text.split())


class MelCTCProcessor(CTCProcessor):
    """Greedy CTC decoding of a checkpoint that reads log-mel features.

    Attributes:
        mel: How samples become features; `normalise` has no part in it.
    """

    mel: LogMel | CentredLogMel

    def input_shape(self, samples: int) -> tuple[int, ...]:
        """Shape [frames, width] of the features of that many samples."""
        return self.mel.shape(samples)

    def features(self, samples: FloatArray) -> FloatArray:
        """Model input [frames, width] from samples [T] at `sampling_rate`."""
        return self.mel.features(samples)


class ClassifierProcessor(Processor):
    """The label of a whole clip.

    Attributes:
        labels: Label of each logit, in order.
    """

    labels: tuple[str, ...]

    @property
    def outputs(self) -> int:
        """Number of labels."""
        return len(self.labels)

    def decode(self, logits: FloatArray) -> str:
        """The likeliest label of logits [1, labels]."""
        return self.labels[int(logits[0].argmax())]


class MelClassifierProcessor(ClassifierProcessor):
    """The label of a clip that is read as a window of log-mel features.

    Attributes:
        mel: How samples become features; `normalise` has no part in it.
    """

    mel: PaddedLogMel

    def input_shape(self, samples: int) -> tuple[int, ...]:
        """Shape [frames, bins] of the features."""
        return self.mel.shape(samples)

    def features(self, samples: FloatArray) -> FloatArray:
        """Model input [frames, bins] from samples [T] at `sampling_rate`."""
        return self.mel.features(samples)


def _kind(value: Any) -> str:
    fields = value if isinstance(value, dict) else type(value).model_fields
    if "labels" in fields:
        return "mel-classifier" if "mel" in fields else "classifier"
    if "positions" in fields:
        return "tokens" if "window_seconds" in fields else "whisper"
    if "decode_by" in fields:
        return "functions"
    return "mel" if "mel" in fields else "ctc"


AnyProcessor = Annotated[
    Annotated[CTCProcessor, Tag("ctc")]
    | Annotated[MelCTCProcessor, Tag("mel")]
    | Annotated[ClassifierProcessor, Tag("classifier")]
    | Annotated[MelClassifierProcessor, Tag("mel-classifier")]
    | Annotated[WhisperProcessor, Tag("whisper")]
    | Annotated[WaveformTokenProcessor, Tag("tokens")]
    | Annotated[FunctionProcessor, Tag("functions")],
    Discriminator(_kind),
]
"""The field of a manifest that holds any of them; told apart by what they hold."""
