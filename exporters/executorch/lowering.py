"""From torch graphs to ExecuTorch programs: XNNPACK for what it takes, a memory plan per length of audio."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
from executorch.exir.passes import MemoryPlanningPass
from executorch.exir.passes.sym_shape_eval_pass import ConstraintBasedSymShapeEvalPass
from torch.utils._sympy.value_ranges import ValueRanges

from bitvox.exporters.executorch.graph import Exposed
from bitvox.exporters.executorch.handing_out import hand_out
from bitvox.exporters.executorch.program import ALIGNMENT, METHOD, Program
from bitvox.exporters.executorch.quiet import quiet


@dataclass(frozen=True)
class Method:
    """A module to be lowered, by the inputs that it is exported with.

    Attributes:
        shapes: What is dynamic of them, as torch.export takes it.
    """

    module: torch.nn.Module
    example: tuple[torch.Tensor, ...]
    shapes: tuple[Any, ...]


@dataclass(frozen=True)
class Lowered:
    """Modules lowered for inputs of any length."""

    edge: Any

    def emit(self, length: int | None = None) -> Program:
        """The program; of one module for inputs [1, T, ...] its memory is planned for T up to `length`."""
        with quiet():
            return _emit(copy.deepcopy(self.edge), length)

    def emit_exposed(
        self, length: int | None, sites: Mapping[str, Sequence[int]]
    ) -> tuple[Program, dict[str, dict[int, Exposed]]] | None:
        """The same program with the sites' values among the outputs of each method, where they can be had."""
        with quiet():
            edge = copy.deepcopy(self.edge)
            exposed = {}
            for method, indices in sites.items():
                found = hand_out(edge.exported_program(method), indices)
                if found is None:
                    return None
                exposed[method] = found
            return _emit(edge, length), exposed


def lower(methods: Mapping[str, Method], constants: Mapping[str, int]) -> Lowered:
    """Export modules and hand to XNNPACK what it takes.

    Nothing in the graph of a clip depends on its longest length: programs can be emitted for more.

    `constants` become methods without inputs that return the number.
    """
    with quiet():
        exported = {
            name: torch.export.export(
                method.module,
                method.example,
                dynamic_shapes=method.shapes,
                # The frame count is a chain of floor divisions; guards on it would pin T to multiples of the
                # stride.
                prefer_deferred_runtime_asserts_over_guards=True,
            )
            for name, method in methods.items()
        }
        edge = to_edge_transform_and_lower(
            exported,
            partitioner=[XnnpackPartitioner()],
            constant_methods=dict(constants),
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
    return Lowered(edge)


def _emit(edge: Any, length: int | None) -> Program:
    """Emission rewrites the programs that it is given."""
    if length is None:
        config = ExecutorchBackendConfig(
            constant_tensor_alignment=ALIGNMENT,
            # What a step is given is read where it lies: the keys and values of a whole window.
            memory_planning_pass=MemoryPlanningPass(alloc_graph_input=False),
            run_reinplace_pass=True,
        )
    else:
        config = ExecutorchBackendConfig(
            constant_tensor_alignment=ALIGNMENT, sym_shape_eval_pass={METHOD: _ShapesUpTo(length)}
        )
    return Program.read(bytes(edge.to_executorch(config).buffer))


class _ShapesUpTo(ConstraintBasedSymShapeEvalPass):
    """Largest shapes for inputs of at most `length` rows, whatever length the graph was exported for."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self._length = length

    def call(self, graph_module: torch.fx.GraphModule) -> Any:
        size = _row_count(graph_module).node
        ranges = size.shape_env.var_to_range
        exported = ranges[size.expr]
        # Every size grows with the input. Bounds over a range of lengths would be far off for a quotient of
        # two of them, as tracing leaves (T * T) // T.
        ranges[size.expr] = ValueRanges(self._length, self._length)
        try:
            return super().call(graph_module)
        finally:
            ranges[size.expr] = exported


def _row_count(graph_module: torch.fx.GraphModule) -> torch.SymInt:
    for node in graph_module.graph.nodes:
        value = node.meta.get("val")
        if node.op != "placeholder" or not isinstance(value, torch.Tensor) or value.dim() < 2:
            continue
        if isinstance(value.shape[1], torch.SymInt):
            return value.shape[1]
    raise AssertionError("the graph has no input [1, T, ...] with T dynamic")
