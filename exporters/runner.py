"""Run a bundle: samples in, logits or text out, with the runtime that its target names and no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bitvox.compiler.frontend.decoding import DecodingOptions, Transcription, check_rows
from bitvox.compiler.frontend.graph_decoder import decoder_of
from bitvox.compiler.frontend.processor import AnyProcessor
from bitvox.compiler.frontend.session import Session
from bitvox.errors import InputError
from bitvox.exporters.bundle import Bundle
from bitvox.exporters.targets import runtime

FloatArray = npt.NDArray[np.float32]


def open_session(target: str, folder: Path, num_threads: int) -> Session:
    """Load the model file of that target in a folder; InputError when no runtime here takes it."""
    return runtime(target, folder).open_session(folder, num_threads)


@dataclass(frozen=True)
class Runner:
    """A bundle in memory, ready to transcribe; safe to call again and again, from one thread at a time."""

    bundle: Bundle
    session: Session

    @property
    def processor(self) -> AnyProcessor:
        """Feature normalisation and decoding of the bundle."""
        return self.bundle.manifest.processor

    def check_beams(self, options: DecodingOptions) -> None:
        """Raise InputError where the runtime keeps fewer hypotheses than `processor.check` lets pass."""
        if options.beams > 1:
            check_rows(decoder_of(self.session), options)

    def logits(self, samples: FloatArray) -> FloatArray:
        """Logits [frames, vocabulary] of samples [T] at the model's rate.

        Raises InputError for samples of another shape, too few for one frame, or not finite.
        """
        self._check(samples)
        return self.processor.logits(self.session, samples)

    def transcribe(self, samples: FloatArray, options: DecodingOptions | None = None) -> str:
        """Transcript, or label, of samples [T] at the model's rate; raises as `listen` does."""
        return self.listen(samples, options).text

    def listen(self, samples: FloatArray, options: DecodingOptions | None = None) -> Transcription:
        """What samples [T] at the model's rate say, decoded as it is asked for, and when they say it.

        Raises InputError as `logits` does, and where the model cannot do what is asked.
        """
        self._check(samples)
        return self.processor.listen(self.session, samples, options)

    def _check(self, samples: FloatArray) -> None:
        if samples.ndim != 1:
            raise InputError(f"samples of shape {list(samples.shape)}: give one mono clip of shape [T]")
        minimum = self.processor.minimum_samples
        if samples.size < minimum:
            raise InputError(f"clip of {samples.size} samples: too short, the model needs {minimum}")
        if not np.isfinite(samples).all():
            raise InputError("clip holds NaN or infinite samples")


def open_runner(bundle: Bundle, num_threads: int = 1) -> Runner:
    """Load a bundle's model.

    Raises InputError, one line, when a file is damaged (its SHA-256 differs), the target has no runtime
    here, or the runtime refuses the file.
    """
    bundle.check_hashes()
    return Runner(bundle, open_session(bundle.manifest.target, bundle.folder, num_threads))
