"""A model file in ExecuTorch."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitvox.compiler.frontend.session import LOGITS, MODEL, SAMPLES, Array
from bitvox.compiler.passes.plan import Kernels
from bitvox.errors import InputError
from bitvox.exporters.executorch.lengths import MARGIN_SECONDS, even_windows, method_rows, windows
from bitvox.exporters.executorch.quiet import quiet
from bitvox.runtime_kernels.adapters.executorch.library import NAMESPACE, library_path, load_library

try:
    with quiet():
        import torch

        # Its public face, `portable_lib`, imports the whole compiler: 3 s and 130 MB.
        from executorch.extension.pybindings import _C as portable_lib
except ImportError as error:
    raise InputError(
        f"executorch: cannot be imported ({error}); install it with `pip install 'bitvox[executorch]'`"
    ) from error

FloatArray = npt.NDArray[np.float32]

PACKAGES = ("executorch",)
MODEL_NAME = "model.pte"

# Methods of the program that return a number: what windows need to know of the model, see `framing`.
RATE, MINIMUM, PER_FRAME = "rows_per_second", "rows_of_first_frame", "rows_per_frame"


@dataclass(frozen=True)
class ExecutorchSession:
    """A loaded program: for each length of audio a method from the model's input [1, T, ...] to logits.

    A method takes its memory when it is first needed and keeps it. Lengths are in rows of the input: samples,
    or frames of features.

    Attributes:
        methods: Longest clip in rows -> the method for clips up to it.
        rate, minimum, per_frame: Rows of a second, of the first frame, and from a frame to the next.
        pools: Whether the logits are one row for all of a clip, as a classifier's are.
    """

    path: Path
    module: Any
    methods: dict[int, str]
    rate: int
    minimum: int
    per_frame: int
    pools: bool = False

    @property
    def longest(self) -> int:
        """Rows of the longest clip that runs in one piece."""
        return max(self.methods)

    @property
    def graphs(self) -> tuple[str, ...]:
        """The one graph."""
        return (MODEL,)

    def call(self, graph: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Logits [1, frames, outputs] of the input [1, T, ...], by name."""
        if graph != MODEL:
            raise KeyError(graph)
        return {LOGITS: self.run(inputs[SAMPLES][0])[None]}

    def run(self, features: FloatArray) -> FloatArray:
        """Logits [frames, outputs] of features [T, ...]; a long clip goes in windows, see `lengths`."""
        if len(features) <= self.longest:
            return self._run(features)
        if self.pools:
            cut = list(even_windows(len(features), self.longest, self.minimum, self.per_frame))
        else:
            margin = MARGIN_SECONDS * self.rate
            cut = list(windows(len(features), self.longest, margin, self.minimum, self.per_frame))
        parts = [self._run(features[window.start : window.stop]) for window in cut]
        if self.pools:
            return np.average(parts, axis=0, weights=[window.last for window in cut]).astype(np.float32)
        return np.concatenate(
            [part[window.first : window.last] for part, window in zip(parts, cut, strict=True)]
        )

    def _run(self, features: FloatArray) -> FloatArray:
        length = min(length for length in self.methods if length >= len(features))
        inputs = (torch.from_numpy(np.ascontiguousarray(features)[None]),)
        with _told() as told:
            try:
                outputs = self.module.run_method(self.methods[length], inputs)
            except RuntimeError as error:
                shape = "×".join(map(str, features.shape))
                raise InputError(
                    f"{self.path}: ExecuTorch cannot run an input of {shape}: {told.reason(error)}"
                ) from error
        logits: FloatArray = outputs[0][0].numpy()
        return logits


def open_session(folder: Path, num_threads: int) -> ExecutorchSession:
    """Load `model.pte` in a folder, and bitvox's operator library where the program calls it.

    The number of threads is that of the whole process from here on.

    Raises InputError when there is no such file, the library is missing, ExecuTorch refuses the file, or its
    methods are others.
    """
    path = folder / MODEL_NAME
    if not path.is_file():
        raise InputError(f"{path}: missing; an ExecuTorch model folder holds {MODEL_NAME}")
    if _calls_library(path):
        load_library()
    with _told() as told:
        try:
            portable_lib._unsafe_reset_threadpool(num_threads)
            module = portable_lib._load_for_executorch(str(path))
            names, numbers = module.method_names(), (RATE, MINIMUM, PER_FRAME)
            methods = {length: name for name in names if (length := method_rows(name)) is not None}
            if not methods or not set(numbers) <= set(names):
                raise InputError(
                    f"{path}: has methods {', '.join(sorted(names))}, which are not those of this bitvox; "
                    "compile the bundle again"
                )
            rate, minimum, per_frame = (int(module.run_method(name, ())[0]) for name in numbers)
        except RuntimeError as error:
            raise InputError(f"{path}: ExecuTorch refuses it: {told.reason(error)}") from error
    session = ExecutorchSession(path, module, methods, rate, minimum, per_frame)
    # A method is loaded when it first runs: let what is missing be missing now. Two frames tell a classifier.
    shortest = methods[min(methods)]
    _, most, *rest = module.method_meta(shortest).input_tensor_meta(0).sizes()
    logits = session.run(np.zeros((min(minimum + per_frame, most), *rest), np.float32))
    return dataclasses.replace(session, pools=len(logits) == 1)


def run_program(path: Path, method: str, inputs: FloatArray) -> list[FloatArray]:
    """Every output of one method of a program, loaded for this call alone; raises as `open_session` does."""
    if _calls_library(path):
        load_library()
    with _told() as told:
        try:
            portable_lib._unsafe_reset_threadpool(1)
            outputs = portable_lib._load_for_executorch(str(path)).run_method(
                method, (torch.from_numpy(inputs),)
            )
        except RuntimeError as error:
            raise InputError(f"{path}: ExecuTorch refuses it: {told.reason(error)}") from error
    return [output.numpy() for output in outputs]


def require_kernels(kernels: Kernels) -> None:
    """InputError where `packed` kernels are asked for and the operator library is not here."""
    if kernels == "packed":
        load_library()


def missing_operators(operators: Iterable[str]) -> list[str]:
    """Those of the operators and backends that ExecuTorch here does not have, with the library loaded."""
    operators = list(operators)
    with contextlib.suppress(InputError):
        if any(name.startswith(NAMESPACE) for name in operators):
            load_library()
    known = {*portable_lib._get_operator_names(), *portable_lib._get_registered_backend_names()}
    return [name for name in operators if name not in known]


def _calls_library(path: Path) -> bool:
    """Whether the program's part of the file, which weights follow, names an operator of bitvox."""
    with path.open("rb") as stream:
        head = stream.read(_HEADER_END)
        size = int.from_bytes(head[16:24], "little") if head[8:12] == b"eh00" else path.stat().st_size
        return NAMESPACE.encode() in head + stream.read(max(size - len(head), 0))


_HEADER_END = 64


class _Told(io.StringIO):
    """What the runtime printed on stderr while it was kept off the terminal."""

    def reason(self, error: Exception) -> str:
        """The first line that says what went wrong, or else the error itself."""
        lines = [line.strip() for line in self.getvalue().splitlines()]
        telling = [line for line in lines if line and not line.startswith(_NOISE)]
        reason = telling[0][:300] if telling else " ".join(str(error).split())[:300]
        if NAMESPACE in reason:  # the library was loaded, so it is of another version
            return f"{reason}; {library_path()} lacks it: install bitvox again to build it anew"
        return reason


# Sources that report how they count processors.
_NOISE = ("[cpuinfo_utils.cpp", "[threadpool.cpp")


@contextlib.contextmanager
def _told() -> Iterator[_Told]:
    told = _Told()
    with contextlib.redirect_stderr(told):
        yield told
