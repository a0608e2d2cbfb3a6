"""Lengths of audio: a program has methods for clips up to several lengths, and longer clips go in windows.

Lengths are counted in rows of the model's input: samples, or frames of the features that it reads.

ExecuTorch plans memory for the largest input of a method and takes it when the method is loaded, so one
method for long clips would cost short ones hundreds of megabytes. Within its length a method takes any clip
as it is: no padding, which the first group norm of wav2vec2-base, a mean over time, would see.

A clip longer than the longest method is cut into windows of that length that overlap. Frames within
`MARGIN_SECONDS` of a cut are taken from the other window, where they have context on both sides. Attention
and that group norm see one window at a time, so that the logits of a clip in windows are not those of the
whole. A classifier's logits are linear in the mean of all frames, so its windows do not overlap, and the mean
over them, weighted by their frames, is that of the whole clip but for what attention sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

LENGTH_SECONDS = (4, 10, 30)
MARGIN_SECONDS = 2

_METHOD_PREFIX = "forward_"


@dataclass(frozen=True)
class Window:
    """Rows [start, stop) of a clip, and frames [first, last) of the window's logits that are kept."""

    start: int
    stop: int
    first: int
    last: int


def method_name(rows: int) -> str:
    """Name of the method for clips of at most `rows` rows."""
    return f"{_METHOD_PREFIX}{rows}"


def method_rows(name: str) -> int | None:
    """Longest clip in rows that a method takes, by its name; None for a method of another kind."""
    digits = name.removeprefix(_METHOD_PREFIX)
    return int(digits) if name.startswith(_METHOD_PREFIX) and digits.isdecimal() else None


def frames(rows: int, minimum: int, per_frame: int) -> int:
    """Frames of logits of a clip: one for `minimum` rows and one more for every `per_frame`."""
    return (rows - minimum) // per_frame + 1


def windows(rows: int, longest: int, margin: int, minimum: int, per_frame: int) -> Iterator[Window]:
    """Cut a clip of more than `longest` rows; the kept frames, joined, are those of the whole clip.

    Args:
        rows: Length of the clip.
        longest: Length of a window.
        margin: Least context of a kept frame on the side of a cut.
        minimum: Rows of the first frame.
        per_frame: Rows from a frame to the next.
    """
    total = frames(rows, minimum, per_frame)
    in_window = frames(longest, minimum, per_frame)
    # A window so short that margins would take all of it keeps at least one frame.
    edge = min(-(-margin // per_frame), (in_window - 1) // 2)
    kept = 0
    while kept < total:
        begin = max(0, min(kept - edge, total - in_window))
        last = in_window if begin + in_window >= total else in_window - edge
        start = begin * per_frame
        yield Window(start, min(rows, start + longest), kept - begin, last)
        kept = begin + last


def even_windows(rows: int, longest: int, minimum: int, per_frame: int) -> Iterator[Window]:
    """Cut a clip of more than `longest` rows into windows of about one size, each frame in just one.

    Arguments are those of `windows`.
    """
    total = frames(rows, minimum, per_frame)
    count = -(-total // frames(longest, minimum, per_frame))
    for index in range(count):
        first, end = total * index // count, total * (index + 1) // count
        start = first * per_frame
        yield Window(start, start + minimum + (end - first - 1) * per_frame, 0, end - first)
