"""What tests of packed kernels need: the operator libraries, built where what they are built against was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bitvox.runtime_kernels.adapters.executorch import library as executorch
from bitvox.runtime_kernels.adapters.onnxruntime import library as onnxruntime

_FETCHED = Path(__file__).parents[1] / "build" / "onnxruntime-headers" / "include"


def unbuilt_onnxruntime() -> str | None:
    """Why ONNX Runtime's library could not be built, or None; fails where it should have been."""
    path = onnxruntime.library_path()
    if path.is_file():
        return None
    if "ONNXRUNTIME_INCLUDE_DIR" in os.environ or _FETCHED.is_dir():
        pytest.fail(f"{path}: not built although there are headers; see the output of pip install")
    return (
        "operator library not built: no ONNX Runtime headers "
        "(run runtime_kernels/adapters/onnxruntime/fetch_headers.sh, then install bitvox again)"
    )


def unbuilt_executorch() -> str | None:
    """Why ExecuTorch's library is not there, or None."""
    if executorch.library_path().is_file():
        return None
    return "operator library not built: executorch was installed after bitvox (install bitvox again)"


def require_onnxruntime() -> None:
    """Skip the test that asks, or fail it, as `unbuilt_onnxruntime` says."""
    if missing := unbuilt_onnxruntime():
        pytest.skip(missing)
