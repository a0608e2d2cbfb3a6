"""The graphs that a model is run in: which there are, and what each reads and writes.

A recogniser that writes all its logits at once is one graph. One that writes token after token is several,
each run as often as it must: what is the same for every token is computed once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from bitvox.compiler.frontend.processor_base import Processor
from bitvox.compiler.frontend.session import LOGITS, MODEL, SAMPLES, Array

_MAXIMUM_SECONDS = 60
_EXAMPLE_SECONDS = 2


@dataclass(frozen=True)
class Length:
    """A length of a tensor that differs from call to call.

    Attributes:
        name: Its name in the graph; two lengths of one name are one.
        least: Shortest; `most`: longest.
        example: One between them, other than 0 and 1, which tracing takes for constants.
    """

    name: str
    least: int
    most: int
    example: int


@dataclass(frozen=True)
class Input:
    """One tensor that a graph reads."""

    name: str
    shape: tuple[int | Length, ...]
    dtype: torch.dtype = torch.float32

    def example(self) -> torch.Tensor:
        """Zeros to trace with."""
        return self._zeros([size.example if isinstance(size, Length) else size for size in self.shape])

    def smallest(self) -> torch.Tensor:
        """Zeros to run quickly with."""
        return self._zeros([size.least if isinstance(size, Length) else size for size in self.shape])

    def _zeros(self, shape: list[int]) -> torch.Tensor:
        return torch.zeros(shape, dtype=self.dtype)


@dataclass(frozen=True)
class Output:
    """One tensor that a graph writes; a length by name, or None, where nobody asks for it."""

    name: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True)
class Graph:
    """One graph.

    Attributes:
        name: Name, and that of its file.
        inputs: What it reads, in the order of the method's arguments; `outputs`: what it writes, in order.
        method: Method of the prepared module that computes it.
    """

    name: str
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    method: str = "forward"

    def bound(self, module: torch.nn.Module) -> torch.nn.Module:
        """A module whose forward is this graph of a prepared (or quantised) module."""
        return module if self.method == "forward" else _Method(module, self.method)

    def dynamic_shapes(self) -> tuple[Any, ...]:
        """The lengths of the inputs as torch.export takes them of `bound`."""
        lengths = [size for port in self.inputs for size in port.shape if isinstance(size, Length)]
        dims = {size.name: torch.export.Dim(size.name, min=size.least, max=size.most) for size in lengths}
        shapes = tuple(
            {axis: dims[size.name] for axis, size in enumerate(port.shape) if isinstance(size, Length)}
            for port in self.inputs
        )
        return shapes if self.method == "forward" else (shapes,)  # all inputs are one variadic argument


class _Method(torch.nn.Module):
    def __init__(self, module: torch.nn.Module, method: str) -> None:
        super().__init__()
        self.module, self.method = module, method

    def forward(self, *inputs: torch.Tensor) -> Any:
        return getattr(self.module, self.method)(*inputs)


def one_graph(module: torch.nn.Module, processor: Processor) -> tuple[Graph, ...]:
    """The graph of a module from model input [1, T, ...] to logits [1, frames, outputs], T dynamic."""
    rate = processor.sampling_rate
    two_frames = processor.minimum_samples + processor.samples_per_frame
    shortest, *_ = processor.input_shape(two_frames)
    longest, *_ = processor.input_shape(_MAXIMUM_SECONDS * rate)
    example, *rest = processor.input_shape(_EXAMPLE_SECONDS * rate)
    length = Length("length", shortest, longest, example)
    return (Graph(MODEL, (Input(SAMPLES, (1, length, *rest)),), (Output(LOGITS, (1, "frames", None)),)),)


@dataclass(frozen=True)
class TorchSession:
    """The graphs of a prepared or quantised module (a `Session`)."""

    module: torch.nn.Module
    of: tuple[Graph, ...]

    @property
    def graphs(self) -> tuple[str, ...]:
        """Names of the graphs."""
        return tuple(graph.name for graph in self.of)

    @torch.inference_mode()
    def call(self, graph: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs of one graph by name; KeyError for a graph that the model does not have."""
        found = {one.name: one for one in self.of}[graph]
        tensors = [torch.from_numpy(inputs[port.name]) for port in found.inputs]
        outputs = getattr(self.module, found.method)(*tensors)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return {output.name: value.numpy() for output, value in zip(found.outputs, outputs, strict=True)}
