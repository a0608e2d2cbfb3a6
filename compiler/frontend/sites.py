"""List the weights that can be quantised, in the order in which they run, and name what cannot be handled."""

from __future__ import annotations

import torch

from bitvox.compiler.frontend.family import Family
from bitvox.compiler.frontend.model import ConvGeometry, Site
from bitvox.errors import InputError


def find_sites(module: torch.nn.Module, family: Family, example: torch.Tensor) -> tuple[Site, ...]:
    """Sites of a prepared module, found by running it once on an example of its input.

    Raises:
        InputError: A layer with a weight matrix cannot be handled; names its module path and the reason.
    """
    order = _execution_order(module, example)
    for name, child in module.named_modules():
        if reason := _unsupported(child, calls=order.count(name)):
            raise InputError(f"layer '{name}' ({type(child).__name__}) cannot be handled: {reason}")
    return tuple(_describe(name, module, family) for name in order)


def _execution_order(module: torch.nn.Module, example: torch.Tensor) -> list[str]:
    order: list[str] = []
    hooks = [
        child.register_forward_hook(lambda *_, name=name: order.append(name))
        for name, child in module.named_modules()
        if isinstance(child, torch.nn.Linear | torch.nn.Conv1d)
    ]
    try:
        with torch.inference_mode():
            module(example)
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
    if isinstance(module, torch.nn.Conv1d):
        if module.padding_mode != "zeros":
            return f"padding mode '{module.padding_mode}'; only zeros"
        if isinstance(module.padding, str):
            return f"padding '{module.padding}'; only a number"
    return None


def _describe(name: str, model: torch.nn.Module, family: Family) -> Site:
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
        role=family.role(name),
        share_group=family.share_group(name),
        has_bias=module.bias is not None,
        conv=conv,
        activation=family.activation(model, name),
    )
