"""A model file in ONNX Runtime: stock, or with bitvox's operator library where the file asks for it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as binding

from bitvox.errors import InputError
from bitvox.exporters.onnx.model_file import imported_domains
from bitvox.runtime_kernels.adapters.onnxruntime import library

if TYPE_CHECKING:
    from bitvox.compiler.passes.plan import Kernels

FloatArray = npt.NDArray[np.float32]

PACKAGES = ("onnxruntime",)
MODEL_NAME = "model.onnx"
INPUT_NAME, OUTPUT_NAME = "samples", "logits"


@dataclass(frozen=True)
class OnnxSession:
    """`samples` float32 [1, T] in, `logits` float32 [1, frames, vocabulary] out."""

    session: onnxruntime.InferenceSession

    def run(self, features: FloatArray) -> FloatArray:
        """Logits [frames, vocabulary] of features [T]."""
        logits: FloatArray = self.session.run([OUTPUT_NAME], {INPUT_NAME: features[None]})[0][0]
        return logits


def open_session(folder: Path, num_threads: int) -> OnnxSession:
    """Load `model.onnx` in a folder by path, so that its external data is mapped and not copied.

    Raises InputError when there is no such file, it needs bitvox's operator library and that is missing, ONNX
    Runtime refuses it, or its signature is another.
    """
    path = folder / MODEL_NAME
    if not path.is_file():
        raise InputError(f"{path}: missing; an ONNX model folder holds {MODEL_NAME}")
    options = quiet_options(path, num_threads)
    try:
        session = create_session(path, options)
    except Exception as error:  # the binding raises a dozen unrelated types
        raise InputError(
            f"{path}: ONNX Runtime {onnxruntime.__version__} refuses it: {_one_line(error)}"
        ) from error
    names = [value.name for value in session.get_inputs()], [value.name for value in session.get_outputs()]
    if names != ([INPUT_NAME], [OUTPUT_NAME]):
        raise InputError(
            f"{path}: has inputs and outputs {names}; a bundle's model has {INPUT_NAME} and {OUTPUT_NAME}"
        )
    _return_freed_memory()
    return OnnxSession(session)


def quiet_options(model: Path, num_threads: int) -> onnxruntime.SessionOptions:
    """Options to run a model file with, its operators registered; InputError without the library it needs."""
    if library.DOMAIN in imported_domains(model):
        options = library.session_options(num_threads)
    else:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
    options.log_severity_level = 4  # its warnings are for the exporter's audit; its errors are raised
    return options


def create_session(model: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """A session on the CPU; whatever ONNX Runtime raises."""
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def require_kernels(kernels: Kernels) -> None:
    """InputError where `packed` kernels are asked for and the operator library is not here."""
    if kernels == "packed":
        library.session_options()


def missing_operators(operators: Iterable[str]) -> list[str]:
    """Those of the operators, `domain:Name`, that the ONNX Runtime here lacks."""
    known = {f"{schema.domain or 'ai.onnx'}:{schema.name}" for schema in binding.get_all_operator_schema()}
    if library.library_path().is_file():
        known.update(library.OPERATORS)
    return [name for name in operators if name not in known]


def _return_freed_memory() -> None:
    """Give back what unpacking the weights left in malloc's pools: several bytes a weight on glibc."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):  # another C library: nothing to return by hand
        return


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
