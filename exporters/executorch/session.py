"""A model file in ExecuTorch."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bitvox.compiler.frontend.graph_decoder import CROSS, ENCODER, STEP
from bitvox.compiler.frontend.session import LOGITS, MODEL, SAMPLES, Array, Session
from bitvox.compiler.passes.plan import Kernels
from bitvox.errors import InputError
from bitvox.exporters.executorch.decoder_session import BEAMS, ROWS, DecoderSession
from bitvox.exporters.executorch.lengths import MARGIN_SECONDS, even_windows, method_rows, windows
from bitvox.exporters.executorch.methods import Methods, portable_lib, torch
from bitvox.runtime_kernels.adapters.executorch.library import NAMESPACE, load_library

FloatArray = npt.NDArray[np.float32]

PACKAGES = ("executorch",)
MODEL_NAME = "model.pte"

# Methods of the program that return a number: what windows need to know of the model, see `framing`.
RATE, MINIMUM, PER_FRAME = "rows_per_second", "rows_of_first_frame", "rows_per_frame"


@dataclass(frozen=True)
class ExecutorchSession:
    """A loaded program: for each length of audio a method from the model's input [1, T, ...] to logits.

    Lengths are in rows of the input: samples, or frames of features.

    Attributes:
        methods: Longest clip in rows -> the method for clips up to it.
        rate, minimum, per_frame: Rows of a second, of the first frame, and from a frame to the next.
        pools: Whether the logits are one row for all of a clip, as a classifier's are.
    """

    program: Methods
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
        (logits,) = self.program.run(
            self.methods[length], torch.from_numpy(np.ascontiguousarray(features)[None])
        )
        found: FloatArray = logits[0].numpy()
        return found


def open_session(folder: Path, num_threads: int) -> Session:
    """Load `model.pte` in a folder, and bitvox's operator library where the program calls it.

    The number of threads is that of the whole process from here on.

    Raises InputError when there is no such file, the library is missing, ExecuTorch refuses the file, or its
    methods are others.
    """
    path = folder / MODEL_NAME
    if not path.is_file():
        raise InputError(f"{path}: missing; an ExecuTorch model folder holds {MODEL_NAME}")
    program = Methods.load(path, num_threads)
    if STEP in program.names:
        return _open_decoder(program)
    methods = {length: name for name in program.names if (length := method_rows(name)) is not None}
    if not methods:
        raise program.unknown()
    program.require(RATE, MINIMUM, PER_FRAME)
    rate, minimum, per_frame = (program.number(name) for name in (RATE, MINIMUM, PER_FRAME))
    session = ExecutorchSession(program, methods, rate, minimum, per_frame)
    # A method is loaded when it first runs: let what is missing be missing now. Two frames tell a classifier.
    _, most, *rest = program.input_shape(methods[min(methods)])
    logits = session.run(np.zeros((min(minimum + per_frame, most), *rest), np.float32))
    return dataclasses.replace(session, pools=len(logits) == 1)


def _open_decoder(program: Methods) -> DecoderSession:
    """The encoder-decoder in a program, its methods loaded by one step; raises as `open_session` does."""
    program.require(ENCODER, CROSS, STEP, BEAMS, ROWS)
    session = DecoderSession(program, program.number(ROWS))
    features = np.zeros(program.input_shape(ENCODER)[1:], np.float32)
    session.step(session.encode(features), np.zeros((1, 1), np.int64))
    return session


def run_program(path: Path, method: str, inputs: FloatArray) -> list[FloatArray]:
    """Every output of one method of a program, loaded for this call alone; raises as `open_session` does."""
    return [output.numpy() for output in Methods.load(path, 1).run(method, torch.from_numpy(inputs))]


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
