"""Whether an error means that a disk takes no more, whatever it has become on its way up."""

from __future__ import annotations

import errno

_FAULTS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file would be larger than is allowed there",
}


def no_room(error: BaseException | None) -> str | None:
    """What is the matter, in words, where the error or one that it came from says so; else None."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FAULTS:
            return _FAULTS[error.errno]
        error = error.__cause__ or error.__context__
    return None
