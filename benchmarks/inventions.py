"""Tell transcripts that a model made up: text that runs in a loop, and words where nobody speaks."""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

from bitvox.benchmarks.metrics import normalise

FloatArray = npt.NDArray[np.float32]

# Text that zlib makes this many times smaller repeats itself (Radford et al. 2022, 4.5).
_COMPRESSION = 2.4

# As does a group of up to so many words that comes so often in a row; short texts do not compress.
_LONGEST_GROUP, _COPIES = 8, 4

# A clip is silent where no tenth of a second has more than this root mean square, 60 dB below full scale.
_FLOOR, _FRAME_SECONDS = 1e-3, 0.1


def loops(text: str) -> bool:
    """Whether a text repeats itself as a decoder does that has lost its place."""
    encoded = text.encode()
    return len(encoded) > _COMPRESSION * len(zlib.compress(encoded)) or _repeats(normalise(text).split())


def is_silent(samples: FloatArray, rate: int) -> bool:
    """Whether there is nothing to hear in samples [T]."""
    frame = round(_FRAME_SECONDS * rate)
    centred = samples - samples.mean(dtype=np.float64)  # a microphone's offset is no sound
    padded = np.pad(centred, (0, -samples.size % frame))
    return bool((np.square(padded).reshape(-1, frame).mean(axis=1) <= _FLOOR**2).all())


def _repeats(words: list[str]) -> bool:
    for length in range(1, _LONGEST_GROUP + 1):
        same = 0
        for one, next_one in zip(words, words[length:], strict=False):
            same = same + 1 if one == next_one else 0
            if same == length * (_COPIES - 1):
                return True
    return False
