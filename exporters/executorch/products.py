"""Attention's products of matrices without the copies that ExecuTorch's decomposition puts before them.

A product of [1, H, M, K] and [1, H, K, N] would be decomposed into an `expand_copy` of each factor to its own
shape, a view, and a `bmm`: for ten seconds of audio 12 MB to copy in every layer, and a border that keeps
XNNPACK from joining the softmax to both products.
"""

from __future__ import annotations

import torch

_aten = torch.ops.aten


def plain_products(graph: torch.fx.Graph) -> None:
    """Write every such product of a traced graph as a `bmm` of [H, M, K] and [H, K, N]."""
    for node in [node for node in graph.nodes if node.target == _aten.matmul.default]:
        heads = _heads(node)
        if heads is None:
            continue
        with graph.inserting_before(node):
            factors = [_matrices(graph, factor, heads) for factor in node.args]
            product = graph.call_function(_aten.bmm.default, tuple(factors))
            sizes = [graph.call_function(_aten.sym_size.int, (product, axis)) for axis in (1, 2)]
            shaped = graph.call_function(_aten.view.default, (product, [1, heads, *sizes]))
        node.replace_all_uses_with(shaped)
        graph.erase_node(node)


def _heads(node: torch.fx.Node) -> int | None:
    """The H of both factors; None for a product of another kind."""
    shapes = [factor.meta["val"].shape for factor in node.args if isinstance(factor, torch.fx.Node)]
    if any(len(shape) != 4 or shape[0] != 1 for shape in shapes) or shapes[0][1] != shapes[1][1]:
        return None
    heads = shapes[0][1]
    return heads if isinstance(heads, int) else None


def _matrices(graph: torch.fx.Graph, factor: object, heads: int) -> torch.fx.Node:
    """[1, H, M, K] as [H, M, K]."""
    assert isinstance(factor, torch.fx.Node)
    sizes = [graph.call_function(_aten.sym_size.int, (factor, axis)) for axis in (2, 3)]
    return graph.call_function(_aten.view.default, (factor, [heads, *sizes]))
