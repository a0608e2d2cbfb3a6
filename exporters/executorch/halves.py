"""Constants of bitvox's operators as float16 where that loses nothing: those of a float16 checkpoint."""

from __future__ import annotations

from collections import defaultdict
from operator import attrgetter

import torch


def store_halves(module: torch.fx.GraphModule) -> None:
    """Store so what bitvox's operators alone are given and float16 holds exactly."""
    nodes: dict[str, list[torch.fx.Node]] = defaultdict(list)
    for node in module.graph.nodes:
        if node.op == "get_attr":
            nodes[node.target].append(node)
    for name, given in nodes.items():
        value = attrgetter(name)(module)
        readers = [reader for node in given for reader in node.users]
        ours = bool(readers) and all("bitvox" in str(reader.target) for reader in readers)
        if ours and isinstance(value, torch.Tensor) and value.dtype == torch.float32 and is_half(value):
            path, _, leaf = name.rpartition(".")
            owner = module.get_submodule(path)
            delattr(owner, leaf)
            owner.register_buffer(leaf, value.detach().half())


def is_half(value: torch.Tensor) -> bool:
    """Whether float16 holds every value exactly."""
    return bool(torch.equal(value.half().float(), value))
