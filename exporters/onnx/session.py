"""A model file in ONNX Runtime: stock, or with bitvox's operator library where the file asks for it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as binding

from bitvox.compiler.frontend.session import LOGITS, MODEL, SAMPLES, Array
from bitvox.errors import InputError
from bitvox.exporters.onnx.model_file import imported_domains
from bitvox.runtime_kernels.adapters.onnxruntime import library

if TYPE_CHECKING:
    from bitvox.compiler.passes.plan import Kernels

PACKAGES = ("onnxruntime",)
SUFFIX = ".onnx"


@dataclass(frozen=True)
class OnnxSession:
    """The graphs of a folder, loaded."""

    sessions: Mapping[str, onnxruntime.InferenceSession]

    @property
    def graphs(self) -> tuple[str, ...]:
        """Names of the graphs."""
        return tuple(self.sessions)

    def call(self, graph: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs of one graph by name; KeyError for a graph that the folder does not have."""
        session = self.sessions[graph]
        names = [value.name for value in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def open_session(folder: Path, num_threads: int) -> OnnxSession:
    """Load the graphs in a folder by path, so that their external data is mapped and not copied.

    Raises InputError when there is none, one needs bitvox's operator library and that is missing, ONNX
    Runtime refuses one, or its signature is another.
    """
    files = sorted(folder.glob(f"*{SUFFIX}"))
    if not files:
        raise InputError(f"{folder}: no {MODEL}{SUFFIX}; an ONNX model folder holds one, or a file per graph")
    sessions = {path.name.removesuffix(SUFFIX): _open(path, num_threads) for path in files}
    _return_freed_memory()
    return OnnxSession(sessions)


def _open(path: Path, num_threads: int) -> onnxruntime.InferenceSession:
    options = quiet_options(path, num_threads)
    try:
        session = create_session(path, options)
    except Exception as error:  # the binding raises a dozen unrelated types
        raise InputError(
            f"{path}: ONNX Runtime {onnxruntime.__version__} refuses it: {_one_line(error)}"
        ) from error
    names = [value.name for value in session.get_inputs()], [value.name for value in session.get_outputs()]
    if path.name == f"{MODEL}{SUFFIX}" and names != ([SAMPLES], [LOGITS]):
        raise InputError(
            f"{path}: has inputs and outputs {names}; a bundle's model has {SAMPLES} and {LOGITS}"
        )
    return session


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
    reason = " ".join(str(error).split())[:300]
    if f"{library.DOMAIN}:" in reason:  # the library was registered, so it is of another version
        return f"{reason}; {library.library_path()} lacks it: install bitvox again to build it anew"
    return reason
