"""The operator library as a file: where it is, and loading it into the running process."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

from bitvox.errors import InputError
from bitvox.runtime_kernels import _native  # type: ignore[attr-defined]

LIBRARY_NAME = "libbitvox_executorch.so"
NAMESPACE = "bitvox::"


def library_path() -> Path:
    """The file that ExecuTorch programs with `bitvox` operators need; it may not exist.

    The environment variable BITVOX_EXECUTORCH_LIBRARY names another than the installed one.
    """
    chosen = os.environ.get("BITVOX_EXECUTORCH_LIBRARY")
    if chosen:
        return Path(chosen)
    # Beside the compiled module, which an editable install keeps apart from the Python files.
    return Path(_native.__file__).parent / "adapters" / "executorch" / LIBRARY_NAME


@cache
def load_library() -> None:
    """Register the operators with the ExecuTorch runtime of this process, once.

    The runtime must have been imported before: the library links against the one that is loaded.

    Raises:
        InputError: The file is missing or does not fit the ExecuTorch here.
    """
    path = library_path()
    if not path.is_file():
        raise InputError(
            f"{path}: missing; this bundle needs the operators in it: install executorch, then bitvox again"
        )
    try:
        ctypes.CDLL(str(path))
    except OSError as error:
        raise InputError(
            f"{path}: does not fit the ExecuTorch here ({error}); install bitvox again to build it anew"
        ) from error
