"""The operator library as a file: where it is, and session options with its operators."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

import onnxruntime

from bitvox.errors import InputError
from bitvox.runtime_kernels import _native  # type: ignore[attr-defined]

LIBRARY_NAME = "libbitvox_onnxruntime.so"
DOMAIN = "bitvox"
_NAMES = ("Attention", "CachedAttention", "InstanceNorm1d", "NBitConv1d", "NBitLinear", "NBitLookup")
OPERATORS = tuple(f"{DOMAIN}:{name}" for name in _NAMES)

# A library that registers operators cannot see the session's thread count: it is told by this entry.
_THREADS_ENTRY = "bitvox.intra_op_num_threads"


def library_path() -> Path:
    """The file that models with `bitvox` operators need; it may not exist.

    BITVOX_ONNXRUNTIME_LIBRARY in the environment names another one, for instance one built by CMake alone.
    """
    named = os.environ.get("BITVOX_ONNXRUNTIME_LIBRARY")
    # Beside the compiled module, which an editable install keeps apart from the Python files.
    return Path(named) if named else Path(_native.__file__).parent / "adapters" / "onnxruntime" / LIBRARY_NAME


def require_library() -> Path:
    """`library_path`, present; InputError, one line, that says how to get it where it is missing."""
    path = library_path()
    if not path.is_file():
        raise InputError(
            f"{path}: missing; packed kernels need the operators in it: install bitvox again with "
            "ONNXRUNTIME_INCLUDE_DIR naming the folder of ONNX Runtime's C headers"
        )
    return path


def session_options(num_threads: int = 1) -> onnxruntime.SessionOptions:
    """Options for an ONNX Runtime session that can load bundles made with `--kernels packed`.

    Args:
        num_threads: Threads of one run, for ONNX Runtime's operators and for bitvox's alike.

    Raises:
        InputError: The operator library is missing, or does not fit the ONNX Runtime here.
    """
    path = require_library()
    if not 1 <= num_threads <= 256:
        raise InputError(f"num_threads: {num_threads}; 1 to 256 is needed")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry(_THREADS_ENTRY, str(num_threads))
    try:
        options.register_custom_ops_library(str(path))
    except Exception as error:  # the binding raises a dozen unrelated types
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path}: ONNX Runtime {onnxruntime.__version__} does not take it: {reason}"
        ) from error
    return options


def library_isa() -> str:
    """Instruction set that the library's operators use in this process, e.g. `avx512vnni`."""
    library = _loaded(require_library())
    library.bitvox_isa.restype = ctypes.c_char_p
    name: bytes | None = library.bitvox_isa()
    if name is None:
        raise InputError(f"BITVOX_ISA: {os.environ['BITVOX_ISA']!r} names no instruction set of this CPU")
    return name.decode()


@cache
def _loaded(path: Path) -> ctypes.CDLL:
    return ctypes.CDLL(str(path))
