"""Attention as one node of bitvox's operator library, beside packed kernels.

Keys and values that a step of a decoder reads as they were written once, for all steps of a window, are what
the step waits for: 110 MB of float32 in whisper-small. They become float16, half the bytes, and the graph
that writes them ends in casts. Only what is exactly softmax(scale * q k^T) v is replaced: with a mask, or
with positions in the scores, it stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from bitvox.exporters.onnx.norms import sole_reader
from bitvox.exporters.onnx.resident import DOMAIN

_BY_HEAD, _KEYS_ACROSS = (0, 2, 1, 3), (0, 2, 3, 1)


@dataclass(frozen=True)
class _Attention:
    """Queries [1, M, C], keys and values [1, T, C] or as a cache has them, and the node that is replaced."""

    q: ir.Value
    k: ir.Value
    v: ir.Value
    last: ir.Node
    heads: int
    scale: float

    @property
    def is_cached(self) -> bool:
        return self.k.is_graph_input()


def fuse_attention(models: Mapping[str, ir.Model]) -> None:
    """Replace every such attention of the graphs of one model."""
    halves: set[str] = set()
    for model in models.values():
        for node in [node for node in model.graph if node.op_type == "Softmax"]:
            found = _match(node)
            if found is None:
                continue
            _replace(model.graph, found)
            if found.is_cached:
                for value in (found.k, found.v):
                    assert value.name is not None
                    value.type = ir.TensorType(ir.DataType.FLOAT16)
                    halves.add(value.name)
        RemoveUnusedNodesPass()(model)
    for model in models.values():
        _write_halves(model.graph, halves)


def _replace(graph: ir.Graph, found: _Attention) -> None:
    output = found.last.outputs[0]
    fused = ir.node(
        "CachedAttention" if found.is_cached else "Attention",
        [found.q, found.k, found.v],
        {"heads": found.heads, "scale": found.scale},
        domain=DOMAIN,
        outputs=[ir.Value(name=output.name)],
    )
    ir.convenience.replace_nodes_and_values(
        graph, found.last, [found.last], [fused], [output], list(fused.outputs)
    )


def _write_halves(graph: ir.Graph, names: set[str]) -> None:
    """Cast the outputs of those names."""
    for position, value in enumerate(graph.outputs):
        if value.name not in names:
            continue
        half = ir.Value(name=value.name, type=ir.TensorType(ir.DataType.FLOAT16), shape=value.shape)
        value.name = f"f{position:x}"
        graph.append(ir.node("Cast", [value], {"to": ir.DataType.FLOAT16}, outputs=[half]))
        graph.outputs[position] = half


def _match(softmax: ir.Node) -> _Attention | None:
    product = sole_reader(softmax)
    if product is None or product.op_type != "MatMul" or product.inputs[0] is not softmax.outputs[0]:
        return None
    output = _joined(product)
    scores, scale = _unscaled(softmax.inputs[0])
    multiply = scores.producer() if scores is not None else None
    if output is None or multiply is None or multiply.op_type != "MatMul" or not _softens_last(softmax):
        return None
    query, factor = _unscaled(multiply.inputs[0])
    q = _split(query, _BY_HEAD)
    k, v = (
        _part(value, order)
        for value, order in ((multiply.inputs[1], _KEYS_ACROSS), (product.inputs[1], _BY_HEAD))
    )
    if q is None or k is None or v is None or k.is_graph_input() != v.is_graph_input():
        return None
    rows, within = _unscaled(q[0])
    scale *= factor * within
    return _Attention(rows, k, v, output, q[1], scale) if rows is not None and scale > 0 else None


def _softens_last(softmax: ir.Node) -> bool:
    return softmax.attributes.get_int("axis", -1) == -1


def _unscaled(value: ir.Value | None) -> tuple[ir.Value | None, float]:
    """What a value is a number times, and the number; the value itself and 1 where it is none."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "Mul" or sole_reader(node) is None:
        return value, 1.0
    factor = node.inputs[1].const_value if node.inputs[1] is not None else None
    return (value, 1.0) if factor is None or factor.size != 1 else (node.inputs[0], float(factor.numpy()))


def _split(value: ir.Value | None, order: tuple[int, ...]) -> tuple[ir.Value, int] | None:
    """The [1, T, heads * width] that a value has transposed by head, and the heads."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "Transpose" or node.attributes.get_ints("perm") != order:
        return None
    shaped = node.inputs[0].producer() if node.inputs[0] is not None else None
    shape = _constant_shape(shaped)
    if shaped is None or len(shape) != 4 or shape[:2] != [1, -1] or shaped.inputs[0] is None:
        return None
    return shaped.inputs[0], shape[2]


def _part(value: ir.Value | None, order: tuple[int, ...]) -> ir.Value | None:
    """Keys or values: an input of the graph that nothing else reads, or [1, T, heads * width]."""
    if value is not None and value.is_graph_input():
        return value if len(tuple(value.uses())) == 1 else None
    split = _split(value, order)
    return split[0] if split is not None else None


def _joined(product: ir.Node) -> ir.Node | None:
    """The node that makes [1, T, heads * width] of a product [1, heads, T, width]."""
    turned = sole_reader(product)
    if turned is None or turned.op_type != "Transpose" or turned.attributes.get_ints("perm") != _BY_HEAD:
        return None
    shaped = sole_reader(turned)
    shape = _constant_shape(shaped)
    return shaped if len(shape) == 3 and shape[:2] == [1, -1] else None


def _constant_shape(node: ir.Node | None) -> list[int]:
    """What a Reshape makes of its input, where that is a constant; else nothing."""
    if node is None or node.op_type != "Reshape" or node.inputs[1] is None:
        return []
    shape = node.inputs[1].const_value
    return [int(size) for size in shape.numpy()] if shape is not None else []
