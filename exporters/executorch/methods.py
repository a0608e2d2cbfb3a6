"""A loaded program: its methods, called by name."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitvox.errors import InputError
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


@dataclass(frozen=True)
class Methods:
    """A program of ExecuTorch. A method takes its memory when it is first needed and keeps it.

    Attributes:
        names: Names of the methods.
    """

    path: Path
    module: Any
    names: tuple[str, ...]

    @classmethod
    def load(cls, path: Path, num_threads: int) -> Methods:
        """Load a program, and bitvox's operator library where it calls it.

        The number of threads is that of the whole process from here on.

        Raises InputError when the library is missing or ExecuTorch refuses the file.
        """
        if _calls_library(path):
            load_library()
        with _told() as told:
            try:
                portable_lib._unsafe_reset_threadpool(num_threads)
                module = portable_lib._load_for_executorch(str(path))
                return cls(path, module, tuple(module.method_names()))
            except RuntimeError as error:
                raise InputError(f"{path}: ExecuTorch refuses it: {told.reason(error)}") from error

    def require(self, *names: str) -> None:
        """InputError where the program has not those methods."""
        if not set(names) <= set(self.names):
            raise self.unknown()

    def unknown(self) -> InputError:
        """What to say of a program whose methods are others."""
        return InputError(
            f"{self.path}: has methods {', '.join(sorted(self.names))}, which are not those of this bitvox; "
            "compile the bundle again"
        )

    def number(self, name: str) -> int:
        """What a method without inputs returns."""
        with _told() as told:
            try:
                return int(self.module.run_method(name, ())[0])
            except RuntimeError as error:
                raise InputError(f"{self.path}: ExecuTorch refuses it: {told.reason(error)}") from error

    def input_shape(self, name: str) -> list[int]:
        """The largest shape of the first input of a method."""
        return list(self.module.method_meta(name).input_tensor_meta(0).sizes())

    def run(self, name: str, *inputs: torch.Tensor) -> list[torch.Tensor]:
        """Outputs of a method; InputError where it cannot be loaded or fails."""
        with _told() as told:
            try:
                return list(self.module.run_method(name, inputs))
            except RuntimeError as error:
                shapes = ", ".join("×".join(map(str, one.shape)) for one in inputs[:1])
                raise InputError(
                    f"{self.path}: ExecuTorch cannot run {name} of {shapes}: {told.reason(error)}"
                ) from error


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
