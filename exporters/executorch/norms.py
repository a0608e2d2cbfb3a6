"""Norms as calls of bitvox's operator library, beside packed kernels.

A group norm with a group per channel, on the largest tensor of the network, is a slow portable kernel of
ExecuTorch's, and the GELU behind it another pass: both become `bitvox::instance_norm`. A layer norm is a
portable kernel too, and what a residual connection adds up before it a delegate of its own, with bytes of its
own in the file: both become `bitvox::layer_norm`.
"""

from __future__ import annotations

import torch

from bitvox.runtime_kernels.adapters.executorch import operators  # noqa: F401 - registers them

_aten = torch.ops.aten


def fuse_norms(graph: torch.fx.Graph) -> None:
    """Replace every such norm of a traced graph."""
    _fuse_instance_norms(graph)
    for node in [node for node in graph.nodes if node.target == _aten.layer_norm.default]:
        x, sizes, scale, bias, epsilon = (*node.args, 1e-5)[:5] if len(node.args) > 3 else (None,) * 5
        if x is None or scale is None or bias is None or len(sizes) != 1:
            continue
        sum_only = _sum_only(x)
        first, added = sum_only.args if sum_only is not None else (x, None)
        with graph.inserting_before(node):
            fused = graph.call_function(
                torch.ops.bitvox.layer_norm.default, (first, added, scale, bias, epsilon)
            )
        fused.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(fused)
        for replaced in (node, sum_only):
            if replaced is not None:
                graph.erase_node(replaced)


def _sum_only(node: torch.fx.Node) -> torch.fx.Node | None:
    """A sum of two values of one shape that one node alone reads; None for anything else."""
    if node.target != _aten.add.Tensor or node.kwargs or len(node.users) != 1:
        return None
    shapes = [part.meta["val"].shape for part in node.args if isinstance(part, torch.fx.Node)]
    return node if len(shapes) == 2 and str(shapes[0]) == str(shapes[1]) else None


def _fuse_instance_norms(graph: torch.fx.Graph) -> None:
    for node in [node for node in graph.nodes if node.target == _aten.group_norm.default]:
        x, groups, scale, bias, epsilon = _arguments(node)
        if scale is None or bias is None or not _per_channel(node, groups):
            continue
        gelu = only_gelu(node)
        last = node if gelu is None else gelu
        with graph.inserting_before(node):
            activation = "none" if gelu is None else "gelu"
            fused = graph.call_function(
                torch.ops.bitvox.instance_norm.default, (x, scale, bias, epsilon, activation)
            )
        last.replace_all_uses_with(fused)
        for replaced in dict.fromkeys((last, node)):
            graph.erase_node(replaced)


def only_gelu(node: torch.fx.Node) -> torch.fx.Node | None:
    """The exact GELU that alone reads a node's output, which one operator then computes too."""
    readers = list(node.users)
    if len(readers) != 1 or readers[0].target != _aten.gelu.default:
        return None
    exact = readers[0].kwargs.get("approximate", "none") == "none" and len(readers[0].args) == 1
    return readers[0] if exact else None


def _arguments(
    node: torch.fx.Node,
) -> tuple[torch.fx.Node, int, torch.fx.Node | None, torch.fx.Node | None, float]:
    names = ("input", "num_groups", "weight", "bias", "eps")
    given = dict(zip(names, node.args, strict=False)) | node.kwargs
    x, groups, epsilon = given["input"], given["num_groups"], given.get("eps", 1e-5)
    scale, bias = given.get("weight"), given.get("bias")
    assert isinstance(x, torch.fx.Node) and isinstance(groups, int) and isinstance(epsilon, float)
    assert isinstance(scale, torch.fx.Node | None) and isinstance(bias, torch.fx.Node | None)
    return x, groups, scale, bias, epsilon


def _per_channel(norm: torch.fx.Node, groups: int) -> bool:
    value = norm.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dim() == 3 and value.shape[1] == groups
