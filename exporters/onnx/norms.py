"""The first norm of an extractor as one node of bitvox's operator library.

PyTorch's group norm with a group per channel comes out of the exporter as

    Reshape -> InstanceNormalization(ones, zeros) -> Reshape -> Mul(scale) -> Add(bias) [-> Gelu]

on the largest tensor of the network, [1, 512, 9599] for three seconds: a pass over it for each. With packed
kernels it becomes `bitvox:InstanceNorm1d`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from bitvox.exporters.onnx.resident import DOMAIN


@dataclass(frozen=True)
class _Norm:
    """The nodes of one such norm, in order; the last is the GELU where it has one."""

    nodes: tuple[ir.Node, ...]
    scale: ir.Value
    bias: ir.Value
    gelu: bool


def fuse_norms(model: ir.Model) -> None:
    """Replace every such norm of the model's graph."""
    graph = model.graph
    for node in [node for node in graph if node.op_type == "InstanceNormalization"]:
        norm = _match(node)
        if norm is None:
            continue
        first, last = norm.nodes[0], norm.nodes[-1]
        attributes = {
            "epsilon": node.attributes.get_float("epsilon", 1e-5),
            "activation": "gelu" if norm.gelu else "none",
        }
        fused = ir.node(
            "InstanceNorm1d",
            [first.inputs[0], _flat(norm.scale), _flat(norm.bias)],
            attributes,
            domain=DOMAIN,
            outputs=[ir.Value(name=last.outputs[0].name)],
        )
        ir.convenience.replace_nodes_and_values(
            graph, last, list(reversed(norm.nodes)), [fused], list(last.outputs), list(fused.outputs)
        )
    RemoveUnusedNodesPass()(model)  # shapes that only the reshapes read


def _match(node: ir.Node) -> _Norm | None:
    before = node.inputs[0].producer() if node.inputs[0] is not None else None
    after = sole_reader(node)
    if before is None or before.op_type != "Reshape" or sole_reader(before) is not node:
        return None
    if after is None or after.op_type != "Reshape" or not _is_plain(node):
        return None
    multiply = sole_reader(after)
    add = sole_reader(multiply) if multiply is not None and multiply.op_type == "Mul" else None
    if multiply is None or add is None or add.op_type != "Add":
        return None
    scale, bias = multiply.inputs[1], add.inputs[1]
    if scale is None or bias is None or not _same_channels(before, scale, bias):
        return None
    gelu = sole_reader(add)
    if gelu is None or not is_exact_gelu(gelu):
        return _Norm((before, node, after, multiply, add), scale, bias, False)
    return _Norm((before, node, after, multiply, add, gelu), scale, bias, True)


def sole_reader(node: ir.Node) -> ir.Node | None:
    """The node that alone reads a node's output; None where there are others, or it leaves the graph."""
    uses = tuple(node.outputs[0].uses())
    return uses[0].node if len(uses) == 1 and not node.outputs[0].is_graph_output() else None


def is_exact_gelu(node: ir.Node) -> bool:
    """Whether a node is ONNX's GELU in its erf form."""
    exact = node.attributes.get_string("approximate", "none") == "none"
    return (node.domain, node.op_type) == ("", "Gelu") and exact


def _is_plain(node: ir.Node) -> bool:
    """Whether an InstanceNormalization neither scales nor shifts."""
    scale, bias = (_array(value) for value in node.inputs[1:])
    return scale is not None and bias is not None and bool((scale == 1).all() and (bias == 0).all())


def _same_channels(before: ir.Node, scale: ir.Value, bias: ir.Value) -> bool:
    """Whether the reshape keeps [B, C, T] and both constants are [C, 1]."""
    shape, factor, shift = _array(before.inputs[1]), _array(scale), _array(bias)
    if shape is None or factor is None or shift is None or shape.shape != (3,):
        return False
    channels = int(shape[1])
    return shape.tolist() == [0, channels, -1] and factor.shape == shift.shape == (channels, 1)


def _array(value: ir.Value | None) -> np.ndarray | None:
    return None if value is None or value.const_value is None else np.asarray(value.const_value.numpy())


def _flat(value: ir.Value) -> ir.Value:
    """A constant [C, 1] as [C]."""
    array = _array(value)
    assert array is not None
    flat = ir.tensor(np.ascontiguousarray(array.reshape(-1)), name=value.name)
    value.const_value, value.shape = flat, ir.Shape([array.size])
    return value
