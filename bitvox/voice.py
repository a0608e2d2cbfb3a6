"""A model and a voice, read and checked once: what every compile starts from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from bitvox.code_version import code_version
from bitvox.compiler.frontend.audio import Clip, first_seconds, read_folder, split_clips
from bitvox.compiler.frontend.loading import load_model
from bitvox.compiler.frontend.model import FloatArray, SpeechModel
from bitvox.compiler.frontend.processor_base import Processor
from bitvox.compiler.passes.base import PassContext, WholeStore
from bitvox.compiler.passes.bytes import ByteCosts
from bitvox.compiler.passes.personalise import personal_context
from bitvox.effort import measurement
from bitvox.errors import InputError
from bitvox.exporters.targets import Exporter, exporter
from bitvox.progress import Progress, logger, no_progress
from bitvox.request import CompileRequest
from bitvox.store import FileStore


@dataclass(frozen=True)
class Voice:
    """A prepared model, its traced graph, and clips of one voice.

    Attributes:
        calibration: Clips that passes may look at.
        judging: Clips that only the agreement with full precision looks at; no clip is in both.
        generic: Clips of anyone, that what is learnt from the voice is mixed with; `share`: the voice's
            weight in it.
        exporter: What writes the files for the target.
        skeleton: The traced model without its sites' weights, see `Exporter.build_skeleton`.
    """

    model: SpeechModel
    calibration: tuple[Clip, ...]
    judging: tuple[Clip, ...]
    exporter: Exporter
    skeleton: bytes
    generic: tuple[Clip, ...] = ()
    share: float = 1.0

    @property
    def samples(self) -> tuple[FloatArray, ...]:
        """Samples of the calibration clips."""
        return _samples(self.calibration)

    @property
    def learnt_from(self) -> tuple[Clip, ...]:
        """Every clip that has a part in the bundle."""
        return (self.calibration if self.share else ()) + (self.generic if self.share < 1 else ())

    @property
    def mixes(self) -> bool:
        """Whether both the voice and the generic clips are learnt from."""
        return bool(self.generic) and 0 < self.share < 1

    def context(
        self, costs: ByteCosts, progress: Progress = no_progress, store: WholeStore | None = None
    ) -> PassContext:
        """What passes read: the calibration clips, mixed with the generic ones."""
        context = PassContext(self.model, self.samples, costs, progress)
        if not self.generic:
            return context
        return personal_context(context, _samples(self.generic), self.share, store)


def _samples(clips: Sequence[Clip]) -> tuple[FloatArray, ...]:
    return tuple(clip.samples for clip in clips)


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
    seconds = measurement(request).audio
    calibration, judging = split_clips(clips, request.clips, seconds)
    generic = first_seconds(_generic(request, processor, clips), seconds)
    writer = exporter(request.target)
    skeleton = _skeleton(request, writer, model, store)
    progress("load", 3, 3)
    return Voice(model, tuple(calibration), tuple(judging), writer, skeleton, tuple(generic))


def _generic(request: CompileRequest, processor: Processor, own: Sequence[Clip]) -> tuple[Clip, ...]:
    """The generic clips, without those that are the voice's: they would calibrate what they judge."""
    if request.generic is None:
        return ()
    heard = {clip.digest for clip in own}
    found = read_folder(request.generic, processor.sampling_rate, processor.minimum_samples, logger.warning)
    kept = [clip for clip in found if clip.digest not in heard]
    if not kept:
        raise InputError(f"generic {request.generic}: holds the voice's own recordings alone; name others")
    return tuple(sorted(kept, key=lambda clip: clip.digest))


def _skeleton(request: CompileRequest, writer: Exporter, model: SpeechModel, store: FileStore) -> bytes:
    kernels, code = request.chosen_kernels, code_version(*writer.PACKAGES)
    kind = f"{request.target} {kernels}" if writer.SKELETON_BY_KERNELS else request.target
    key = hashlib.sha256(f"skeleton {kind} {code} {model.fingerprint}".encode()).hexdigest()
    kept = store.get_bytes(key)
    if kept is None:
        kept = writer.build_skeleton(model, kernels)
        store.put_bytes(key, kept)
    return kept
