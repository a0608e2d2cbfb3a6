"""The user's recordings: any usual file at any rate becomes mono float32 samples at the model's rate.

Nothing here imports torch: a bundle transcribes with this module alone.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from bitvox.errors import InputError

FloatArray = npt.NDArray[np.float32]

AUDIO_SUFFIXES = frozenset(
    f".{name}"
    for name in ("wav", "wave", "flac", "ogg", "oga", "opus", "mp3", "aiff", "aif", "au", "caf", "w64")
)
# What phones and browsers record and libsndfile does not read: worth naming when a folder holds nothing else.
_FOREIGN_SUFFIXES = frozenset((".m4a", ".aac", ".mp4", ".webm", ".wma", ".amr", ".3gp", ".mov", ".mkv"))
_READABLE = "bitvox reads wav, flac, ogg, opus, mp3 and aiff"

# A damaged header may claim any rate, and one of 1 Hz would make hours of a second.
_RATES = (2000, 768_000)

# A few steps of 16-bit audio: dither, a constant offset. Speech that quiet would be lost in them.
_SILENCE = 2e-4

# A writer that streams to a pipe leaves the length field at its largest value: unknown, not truncated.
_UNKNOWN_LENGTH = 0x7FFFFFFF


@dataclass(frozen=True, eq=False)
class Clip:
    """One recording, ready for a model.

    Attributes:
        path: The file it came from.
        samples: Mono float32 [T] at the model's rate, full scale ±1.
        seconds: T divided by the model's rate.
        digest: SHA-256 of the samples: the same recording under two names, or losslessly re-coded, has one
            digest.
    """

    path: Path
    samples: FloatArray
    seconds: float
    digest: str


def read_clip(path: Path, rate: int) -> Clip:
    """Read one file at any rate and channel count as mono at `rate` Hz (soxr HQ; mean of the channels).

    Raises InputError, one line that names the file, when it is missing, empty, truncated, no audio, or
    holds NaN or infinity. Silence and very short clips are read: `defect` judges them.
    """
    _require_file(path)
    samples, source_rate = _decode(path)
    if not _RATES[0] <= source_rate <= _RATES[1]:
        raise InputError(
            f"{path}: sampled at {source_rate} Hz; speech is sampled at {_RATES[0]} to {_RATES[1]} Hz"
        )
    if not samples.size:
        raise InputError(f"{path}: holds no samples; record it again")
    mono = samples.mean(axis=1, dtype=np.float64).astype(np.float32)
    if not np.isfinite(mono).all():
        raise InputError(f"{path}: holds NaN or infinite samples; export it again as 16-bit PCM")
    if source_rate != rate:
        mono = _resample(mono, source_rate, rate)
    mono = np.ascontiguousarray(mono, dtype=np.float32)
    digest = hashlib.sha256(mono.tobytes()).hexdigest()
    return Clip(path=path, samples=mono, seconds=mono.size / rate, digest=digest)


def defect(clip: Clip, minimum_samples: int) -> str | None:
    """Why a clip can teach nothing about a voice, in words, or None: silent, or under one frame long."""
    if clip.samples.size < minimum_samples:
        return f"too short ({clip.samples.size} samples, the model needs {minimum_samples})"
    if not clip.samples.any():
        return "all samples are zero"
    span = float(np.ptp(clip.samples))
    if span < _SILENCE:
        return f"silent (its samples span {span:.1e} of full scale)"
    return None


def find_audio(path: Path) -> list[Path]:
    """The audio files at `path`: itself if it is a file, else those below it, sorted by relative path.

    Links are followed, each folder once; hidden files are left out. Raises InputError when there is nothing
    there or no audio below it.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give a folder of recordings or one recording")
    if path.is_file():
        if path.suffix.lower() not in AUDIO_SUFFIXES:
            raise InputError(f"{path}: not an audio file; {_READABLE}")
        return [path]
    files = sorted(_walk(path), key=lambda file: file.relative_to(path).as_posix())
    audio = [file for file in files if file.suffix.lower() in AUDIO_SUFFIXES]
    if not audio:
        raise InputError(f"{path}: no audio in it{_foreign_hint(files)}; {_READABLE}")
    return audio


def read_folder(folder: Path, rate: int, minimum_samples: int, warn: Callable[[str], None]) -> list[Clip]:
    """Every usable clip below `folder` (or that one file), in the order of `find_audio`.

    A clip that is empty, truncated, unreadable, silent, not finite or shorter than `minimum_samples` (at
    `rate` Hz) is skipped, and `warn` gets one line about it. Raises InputError as `find_audio` does, and
    when none is left.
    """
    files = find_audio(folder)
    clips = []
    for file in files:
        try:
            clip = read_clip(file, rate)
        except InputError as error:
            warn(f"skipped {error}")
            continue
        reason = defect(clip, minimum_samples)
        if reason:
            warn(f"skipped {file}: {reason}")
        else:
            clips.append(clip)
    if not clips:
        raise InputError(f"{folder}: none of its {len(files)} audio files can be used (each is named above)")
    return clips


def split_clips(
    clips: Sequence[Clip], most: int | None = None, seconds: float = math.inf
) -> tuple[list[Clip], list[Clip]]:
    """Divide clips into (calibration, judging), disjoint in files and in content.

    A quarter of the distinct recordings, rounded down and at least one when there are two, is judged. Which
    ones follows from their digests alone, never from names or order; copies of one recording stay on one
    side. Of the others `most` calibrate, as far as `first_seconds` goes. Both lists are ordered by digest.
    """
    if most is not None and most < 1:
        raise InputError(f"clips {most}: calibration needs at least 1 clip")
    ordered = sorted(clips, key=lambda clip: (clip.digest, clip.path.as_posix()))
    distinct = sorted({clip.digest for clip in clips})
    judged_count = max(1, len(distinct) // 4) if len(distinct) > 1 else 0
    judged = set(distinct[:judged_count])
    calibration = [clip for clip in ordered if clip.digest not in judged]
    return first_seconds(calibration[:most], seconds), [clip for clip in ordered if clip.digest in judged]


def first_seconds(clips: Sequence[Clip], seconds: float) -> list[Clip]:
    """The first of the clips, whole, that last no longer than that together; of a longer one its start."""
    ends = itertools.accumulate(clip.seconds for clip in clips)
    if count := sum(end <= seconds for end in ends):
        return list(clips[:count])
    return [
        replace(
            clip, samples=clip.samples[: int(clip.samples.size * seconds / clip.seconds)], seconds=seconds
        )
        for clip in clips[:1]
    ]


def _require_file(path: Path) -> None:
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if not path.is_file():
        raise InputError(f"{path}: not a file; give one recording")
    if not path.stat().st_size:
        raise InputError(f"{path}: empty file; record it again")


def _decode(path: Path) -> tuple[FloatArray, int]:
    """Samples [T, channels] and their rate; InputError when the file is not whole audio."""
    try:
        with soundfile.SoundFile(path) as file:
            expected, rate = file.frames, file.samplerate
            samples = file.read(dtype="float32", always_2d=True)
            log = file.extra_info
    except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
        reason = _reason(error)
        raise InputError(f"{path}: unreadable or truncated ({reason}); record or copy it again") from error
    if samples.shape[0] < expected or _cut_short(log):
        raise InputError(f"{path}: truncated after {samples.shape[0] / rate:.2f} s; record or copy it again")
    return samples, rate


def _resample(mono: FloatArray, source_rate: int, rate: int) -> FloatArray:
    """The samples at another rate; an offset is set aside, since its ends would ring."""
    offset = np.float32(mono.mean(dtype=np.float64))
    return soxr.resample(mono - offset, source_rate, rate, quality="HQ") + offset


def _cut_short(log: str) -> bool:
    """Whether libsndfile's parse log says that the file ends before its header says so."""
    claimed = re.search(r"data : (\d+) \(should be (\d+)\)", log)
    if claimed and int(claimed[2]) < int(claimed[1]) < _UNKNOWN_LENGTH:
        return True
    return "without an End-Of-Stream flag" in log or "> file length" in log


def _reason(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text.rsplit("': ", maxsplit=1)[-1].removeprefix("Error : ").rstrip(".")


def _walk(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root, name) for name in names if not name.startswith("."))


def _foreign_hint(files: Iterable[Path]) -> str:
    counts = Counter(file.suffix.lower() for file in files if file.suffix.lower() in _FOREIGN_SUFFIXES)
    if not counts:
        return ""
    suffix, number = counts.most_common(1)[0]
    return f" but {number} {suffix} file{'s' if number > 1 else ''}: convert to wav or flac first"
