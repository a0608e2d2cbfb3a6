"""`Processor`: what every kind of processor has; a kind of its own is a file that extends it."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from bitvox.compiler.frontend.decoding import DecodingOptions, Segment, Transcription
from bitvox.compiler.frontend.session import Array, Session, run_model
from bitvox.errors import InputError

FloatArray = npt.NDArray[np.float32]

# Wav2Vec2FeatureExtractor's documented constant in (x - mean) / sqrt(var + 1e-7).
_VARIANCE_FLOOR = 1e-7


class Processor(BaseModel):
    """Features of one checkpoint, and what its logits mean.

    Attributes:
        sampling_rate: Samples per second that the model was trained on.
        normalise: Whether a clip is brought to zero mean and unit variance first.
        minimum_samples: Shortest clip that yields one frame.
        samples_per_frame: Samples from one frame to the next.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sampling_rate: int
    normalise: bool
    minimum_samples: int
    samples_per_frame: int

    def features(self, samples: FloatArray) -> FloatArray:
        """Model input, of `input_shape`, from samples [T] at `sampling_rate`."""
        if not self.normalise:
            return np.ascontiguousarray(samples, dtype=np.float32)
        centred = samples.astype(np.float64) - samples.mean(dtype=np.float64)
        return (centred / np.sqrt(np.mean(centred**2) + _VARIANCE_FLOOR)).astype(np.float32)

    def input_shape(self, samples: int) -> tuple[int, ...]:
        """Shape of the model input of that many samples; its first length grows with them."""
        return (samples,)

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Number of logits of a frame."""

    @abstractmethod
    def decode(self, logits: FloatArray) -> str:
        """What logits [frames, outputs] say."""

    def inputs(self, session: Session, samples: FloatArray) -> tuple[Array, ...]:
        """What the torch module is called on for one clip, as `SpeechModel.inputs` says."""
        return (self.features(samples)[None],)

    def retrace(self, session: Session, inputs: Sequence[Array]) -> FloatArray:
        """Logits [frames, outputs] of another session on the `inputs` of the torch module."""
        return run_model(session, inputs[0][0])

    def logits(self, session: Session, samples: FloatArray) -> FloatArray:
        """Logits [frames, outputs] of one clip of samples [T] at `sampling_rate`."""
        return run_model(session, self.features(samples))

    def transcribe(self, session: Session, samples: FloatArray) -> str:
        """What one clip of samples [T] at `sampling_rate` says."""
        return self.decode(self.logits(session, samples))

    def listen(
        self, session: Session, samples: FloatArray, options: DecodingOptions | None = None
    ) -> Transcription:
        """What one clip of samples [T] at `sampling_rate` says, as it is asked for, and when.

        Raises InputError, one line, where the options ask for what this kind of model cannot do.
        """
        self.check(options or DecodingOptions())
        text = self.transcribe(session, samples)
        segments = (Segment(0.0, round(samples.size / self.sampling_rate, 3), text),) if text else ()
        return Transcription(text, None, segments)

    def check(self, options: DecodingOptions) -> None:
        """Raise InputError, one line, where this kind of model cannot do what is asked."""
        usual = DecodingOptions()
        for field in dataclasses.fields(options):
            if getattr(options, field.name) != getattr(usual, field.name):
                raise InputError(
                    f"{field.name}: only a model that writes token after token, as Whisper does, takes it; "
                    "leave it out"
                )
