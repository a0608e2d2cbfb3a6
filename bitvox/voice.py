"""A model and a voice, read and checked once: what every compile starts from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from bitvox.code_version import code_version
from bitvox.compiler.frontend.audio import Clip, read_folder, split_clips
from bitvox.compiler.frontend.loading import load_model
from bitvox.compiler.frontend.model import FloatArray, SpeechModel
from bitvox.errors import InputError
from bitvox.exporters.targets import Exporter, exporter
from bitvox.progress import Progress, logger
from bitvox.request import CompileRequest
from bitvox.store import FileStore


@dataclass(frozen=True)
class Voice:
    """A prepared model, its traced graph, and clips of one voice.

    Attributes:
        calibration: Clips that passes may look at.
        judging: Clips that only the agreement with full precision looks at; no clip is in both.
        exporter: What writes the files for the target.
        skeleton: The traced model without its sites' weights, see `Exporter.build_skeleton`.
    """

    model: SpeechModel
    calibration: tuple[Clip, ...]
    judging: tuple[Clip, ...]
    exporter: Exporter
    skeleton: bytes

    @property
    def samples(self) -> tuple[FloatArray, ...]:
        """Samples of the calibration clips."""
        return tuple(clip.samples for clip in self.calibration)


def read_voice(request: CompileRequest, store: FileStore, progress: Progress) -> Voice:
    """Load the model and the audio that `request` names.

    Raises:
        InputError: The model or the audio cannot be used.
    """
    if request.audio is None:
        raise InputError("audio: none given; name a folder of the user's recordings with --audio")
    progress("load", 0, 3)
    model = load_model(request.model) if isinstance(request.model, str) else request.model
    progress("load", 1, 3)
    processor = model.processor
    clips = read_folder(request.audio, processor.sampling_rate, processor.minimum_samples, logger.warning)
    progress("load", 2, 3)
    calibration, judging = split_clips(clips, request.clips)
    writer = exporter(request.target)
    skeleton = _skeleton(request.target, writer, model, store)
    progress("load", 3, 3)
    return Voice(model, tuple(calibration), tuple(judging), writer, skeleton)


def _skeleton(target: str, writer: Exporter, model: SpeechModel, store: FileStore) -> bytes:
    code = code_version(*writer.PACKAGES)
    key = hashlib.sha256(f"skeleton {target} {code} {model.fingerprint}".encode()).hexdigest()
    kept = store.get_bytes(key)
    if kept is None:
        kept = writer.build_skeleton(model)
        store.put_bytes(key, kept)
    return kept
