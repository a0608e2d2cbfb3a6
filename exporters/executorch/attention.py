"""Attention as one call of bitvox's operator library, beside packed kernels.

Written out, it is two products, a softmax and five transposes: delegates and views whose descriptions take
kilobytes in every layer of every method, and scores of all queries, 12 MB for ten seconds of audio, that go
through memory three times. Only what is exactly softmax(scale * q k^T) v is replaced: with a mask, or with
positions in the scores, it stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

import torch

from bitvox.runtime_kernels.adapters.executorch import operators  # noqa: F401 - registers them

_aten = torch.ops.aten


@dataclass(frozen=True)
class _Attention:
    """Three values [B, T, heads * width], the node that is replaced, and what it computes."""

    q: torch.fx.Node
    k: torch.fx.Node
    v: torch.fx.Node
    output: torch.fx.Node
    heads: int
    scale: float


def fuse_attention(graph: torch.fx.Graph) -> None:
    """Replace every such attention of a traced graph."""
    for node in [node for node in graph.nodes if node.target == _aten.softmax.int]:
        found = _match(node)
        if found is None:
            continue
        with graph.inserting_before(found.output):
            fused = graph.call_function(
                torch.ops.bitvox.attention.default, (found.q, found.k, found.v, found.heads, found.scale)
            )
        fused.meta["val"] = found.output.meta["val"]
        found.output.replace_all_uses_with(fused)
    graph.eliminate_dead_code()


def _match(softmax: torch.fx.Node) -> _Attention | None:
    product = _sole_reader(softmax)
    if softmax.args[1] != -1 or not _is(product, _aten.matmul.default) or product.args[0] is not softmax:
        return None
    scores, scale = _unscaled(softmax.args[0])
    if not _is(scores, _aten.matmul.default) or len(scores.users) != 1:
        return None
    query, factor = _unscaled(scores.args[0])
    q, k, v = (_rows(part) for part in (query, _swapped(scores.args[1], 2, 3), product.args[1]))
    output = _joined(product)
    if output is None or q is None or k is None or v is None or scale * factor <= 0:
        return None
    same = len({str(part.meta["val"].shape[2]) for part in (q.rows, k.rows, v.rows, output)}) == 1
    if not same or not q.heads == k.heads == v.heads:
        return None
    return _Attention(q.rows, k.rows, v.rows, output, q.heads, scale * factor)


@dataclass(frozen=True)
class _Split:
    """A value [B, T, heads * width] that is used head by head."""

    rows: torch.fx.Node
    heads: int


def _is(node: object, *targets: object) -> TypeGuard[torch.fx.Node]:
    return isinstance(node, torch.fx.Node) and node.target in targets


def _sole_reader(node: torch.fx.Node) -> torch.fx.Node | None:
    readers = list(node.users)
    return readers[0] if len(readers) == 1 else None


def _unscaled(node: object) -> tuple[object, float]:
    """What a node multiplies with a number, and the number; the node itself and 1 where it does not."""
    if _is(node, _aten.mul.Tensor) and isinstance(node.args[1], float) and len(node.users) == 1:
        return node.args[0], node.args[1]
    return node, 1.0


def _swapped(node: object, *axes: int) -> object:
    """What a node transposes so."""
    if not _is(node, _aten.transpose.int) or len(node.users) != 1:
        return None
    rank = node.meta["val"].dim()
    given = [axis % rank for axis in node.args[1:] if isinstance(axis, int)]
    return node.args[0] if sorted(given) == list(axes) else None


def _rows(node: object) -> _Split | None:
    """What a node has as [B, heads, T, width]."""
    split = _swapped(node, 1, 2)
    if not _is(split, _aten.view.default, _aten.unflatten.int) or len(split.users) != 1:
        return None
    source, shape = split.args[0], split.meta["val"].shape
    if not isinstance(source, torch.fx.Node) or not isinstance(source.meta.get("val"), torch.Tensor):
        return None
    rows = source.meta["val"].shape
    whole = len(shape) == 4 and len(rows) == 3 and str(rows[:2]) == str(shape[:2])
    return _Split(source, int(shape[2])) if whole and isinstance(shape[2], int) else None


def _joined(product: torch.fx.Node) -> torch.fx.Node | None:
    """The value [B, T, heads * width] that a product [B, heads, T, width] is made into."""
    node = _sole_reader(product)
    if node is None or _swapped(node, 1, 2) is not product:
        return None
    turned = node.meta["val"].shape
    node = _sole_reader(node)
    if _is(node, _aten.contiguous.default):
        node = _sole_reader(node)
    if not _is(node, _aten.reshape.default, _aten.view.default, _aten.flatten.using_ints):
        return None
    shape = node.meta["val"].shape
    return node if len(shape) == 3 and str(shape[:2]) == str(turned[:2]) else None
