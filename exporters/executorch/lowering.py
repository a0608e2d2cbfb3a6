"""From a torch graph to ExecuTorch programs: XNNPACK for what it takes, a memory plan per length of audio."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
from executorch.exir.passes.sym_shape_eval_pass import ConstraintBasedSymShapeEvalPass
from torch.utils._sympy.value_ranges import ValueRanges

from bitvox.exporters.executorch.program import ALIGNMENT, Program
from bitvox.exporters.executorch.quiet import quiet


def lower(
    module: torch.nn.Module,
    example: torch.Tensor,
    shortest: int,
    lengths: Sequence[int],
    constants: Mapping[str, int],
) -> list[Program]:
    """Programs of a module that maps samples [1, T], one for each of `lengths`: T from `shortest` up to it.

    They hold the same instructions, constants and delegates; memory is planned for the length. `constants`
    become methods without inputs that return the number.
    """
    with quiet():
        exported = torch.export.export(
            module,
            (example,),
            dynamic_shapes=({1: torch.export.Dim("samples", min=shortest, max=max(lengths))},),
            # The frame count is a chain of floor divisions; guards on it would pin T to multiples of the
            # stride.
            prefer_deferred_runtime_asserts_over_guards=True,
        )
        edge = to_edge_transform_and_lower(
            {"forward": exported},
            partitioner=[XnnpackPartitioner()],
            constant_methods=dict(constants),
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
        return [_emit(edge, length) for length in lengths]


def _emit(edge: Any, length: int) -> Program:
    config = ExecutorchBackendConfig(
        constant_tensor_alignment=ALIGNMENT, sym_shape_eval_pass={"forward": _ShapesUpTo(length)}
    )
    # Emission rewrites the programs that it is given.
    emitted = copy.deepcopy(edge).to_executorch(config)
    return Program.read(bytes(emitted.buffer))


class _ShapesUpTo(ConstraintBasedSymShapeEvalPass):
    """Largest shapes for inputs of at most `length` samples, whatever length the graph was exported for."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self._length = length

    def call(self, graph_module: torch.fx.GraphModule) -> Any:
        size = _sample_count(graph_module).node
        ranges = size.shape_env.var_to_range
        exported = ranges[size.expr]
        ranges[size.expr] = ValueRanges(exported.lower, self._length)
        try:
            return super().call(graph_module)
        finally:
            ranges[size.expr] = exported


def _sample_count(graph_module: torch.fx.GraphModule) -> torch.SymInt:
    for node in graph_module.graph.nodes:
        value = node.meta.get("val")
        if node.op != "placeholder" or not isinstance(value, torch.Tensor) or value.dim() != 2:
            continue
        if isinstance(value.shape[1], torch.SymInt):
            return value.shape[1]
    raise AssertionError("the graph has no input [1, T] with T dynamic")
