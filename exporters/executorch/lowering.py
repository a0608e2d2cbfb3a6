"""From a torch graph to ExecuTorch programs: XNNPACK for what it takes, a memory plan per length of audio."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
from executorch.exir.passes.sym_shape_eval_pass import ConstraintBasedSymShapeEvalPass
from torch.utils._sympy.value_ranges import ValueRanges

from bitvox.exporters.executorch.graph import Exposed
from bitvox.exporters.executorch.handing_out import hand_out
from bitvox.exporters.executorch.program import ALIGNMENT, METHOD, Program
from bitvox.exporters.executorch.quiet import quiet


@dataclass(frozen=True)
class Lowered:
    """A module that maps an input [1, T, ...], lowered for any T."""

    edge: Any

    def emit(self, length: int) -> Program:
        """The program for T up to `length`: the same whatever the length but for how memory is planned."""
        with quiet():
            return _emit(copy.deepcopy(self.edge), length)

    def emit_exposed(self, length: int, sites: int) -> tuple[Program, tuple[Exposed, ...]] | None:
        """The same program with the values of every site among its outputs, where they can be had."""
        with quiet():
            edge = copy.deepcopy(self.edge)
            exposed = hand_out(edge.exported_program(METHOD), sites)
            return None if exposed is None else (_emit(edge, length), exposed)


def lower(
    module: torch.nn.Module,
    example: torch.Tensor,
    shortest: int,
    longest: int,
    constants: Mapping[str, int],
) -> Lowered:
    """Export a module for `shortest` to `longest` rows and hand to XNNPACK what it takes.

    Nothing in the graph depends on `longest`: programs can be emitted for more.

    `constants` become methods without inputs that return the number.
    """
    with quiet():
        exported = torch.export.export(
            module,
            (example,),
            dynamic_shapes=({1: torch.export.Dim("rows", min=shortest, max=longest)},),
            # The frame count is a chain of floor divisions; guards on it would pin T to multiples of the
            # stride.
            prefer_deferred_runtime_asserts_over_guards=True,
        )
        edge = to_edge_transform_and_lower(
            {METHOD: exported},
            partitioner=[XnnpackPartitioner()],
            constant_methods=dict(constants),
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
    return Lowered(edge)


def _emit(edge: Any, length: int) -> Program:
    """Emission rewrites the programs that it is given."""
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
