"""List the weights that can be quantised, in the order in which they run, and name what cannot be handled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import torch

from bitvox.compiler.frontend.graphs import Graph
from bitvox.compiler.frontend.model import ConvGeometry, Role, Site
from bitvox.compiler.frontend.tied import TiedLinear
from bitvox.errors import InputError


class SiteRules(Protocol):
    """What names alone do not tell of a site; the attributes of a `Family`."""

    @property
    def role(self) -> Callable[[str], Role]:
        """Module path -> role of the site."""
        ...

    @property
    def share_group(self) -> Callable[[str], str]:
        """Module path -> group of the sites that must share a width."""
        ...

    @property
    def activation(self) -> Callable[[torch.nn.Module, str], Literal["gelu"] | None]:
        """(Prepared module, module path) -> the function that alone reads the site's output, if known."""
        ...


def find_sites(module: torch.nn.Module, rules: SiteRules, graphs: Sequence[Graph]) -> tuple[Site, ...]:
    """Sites of a prepared module, found by running each of its graphs once.

    Raises:
        InputError: A layer with a weight matrix cannot be handled; names its module path and the reason.
    """
    order = [(name, graph.name) for graph in graphs for name in _execution_order(module, graph)]
    names = [name for name, _ in order]
    for name, child in module.named_modules():
        if reason := _unsupported(child, calls=names.count(name)):
            raise InputError(f"layer '{name}' ({type(child).__name__}) cannot be handled: {reason}")
    return tuple(_describe(name, graph, module, rules) for name, graph in order)


def _execution_order(module: torch.nn.Module, graph: Graph) -> list[str]:
    order: list[str] = []
    hooks = [
        child.register_forward_hook(lambda *_, name=name: order.append(name))
        for name, child in module.named_modules()
        if isinstance(child, torch.nn.Linear | torch.nn.Conv1d)
    ]
    try:
        with torch.inference_mode():
            graph.bound(module)(*(port.smallest() for port in graph.inputs))
    finally:
        for hook in hooks:
            hook.remove()
    return order


def _unsupported(module: torch.nn.Module, calls: int) -> str | None:
    matrices = [p for p in module.parameters(recurse=False) if p.ndim >= 2]
    if not matrices:
        return None
    if not isinstance(module, torch.nn.Linear | torch.nn.Conv1d):
        return "only Linear and Conv1d weights can be quantised"
    if calls != 1:
        return f"it runs {calls} times in one pass; a site runs exactly once"
    if isinstance(module, TiedLinear) and module.in_features % 8:
        return f"its rows have {module.in_features} weights; rows that are looked up have a multiple of 8"
    if isinstance(module, torch.nn.Conv1d):
        if module.padding_mode != "zeros":
            return f"padding mode '{module.padding_mode}'; only zeros"
        if isinstance(module.padding, str):
            return f"padding '{module.padding}'; only a number"
    return None


def _describe(name: str, graph: str, model: torch.nn.Module, rules: SiteRules) -> Site:
    module = model.get_submodule(name)
    assert isinstance(module, torch.nn.Linear | torch.nn.Conv1d)
    conv = None
    if isinstance(module, torch.nn.Conv1d):
        assert not isinstance(module.padding, str)
        conv = ConvGeometry(module.stride[0], module.padding[0], module.dilation[0], module.groups)
    return Site(
        name=name,
        operator="linear" if conv is None else "conv1d",
        shape=tuple(module.weight.shape),
        role=rules.role(name),
        share_group=rules.share_group(name),
        has_bias=module.bias is not None,
        conv=conv,
        activation=rules.activation(model, name),
        graph=graph,
        tied=isinstance(module, TiedLinear),
    )
