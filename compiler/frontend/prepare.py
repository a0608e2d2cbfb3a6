"""Bring a loaded module into the form that later rooms expect: eval mode, plain weights, no gradients."""

from __future__ import annotations

import torch
from torch.nn.utils import parametrize

from bitvox.compiler.frontend.threads import single_threaded


def prepare(module: torch.nn.Module) -> None:
    """Fold weight norms, drop what only training needs, freeze. Works in place.

    The positional convolution keeps its weight as a direction and a magnitude; quantising either is not
    quantising the weight, so the product replaces both.
    """
    module.eval()
    module.requires_grad_(False)
    with single_threaded():  # the norm's last digits depend on how many share its sum
        for child in module.modules():
            if parametrize.is_parametrized(child):
                for name in list(child.parametrizations):  # type: ignore[arg-type]
                    _fold(child, name)
    for name, child in list(module.named_modules()):
        if isinstance(child, torch.nn.Dropout) and name:
            parent, _, attribute = name.rpartition(".")
            setattr(module.get_submodule(parent), attribute, torch.nn.Identity())
    module.requires_grad_(False)


def _fold(module: torch.nn.Module, name: str) -> None:
    """Put the tensor that a parametrization computes in its place."""
    parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    value = getattr(module, name)
    # What takes no gradient torch leaves behind as a buffer, which no count of parameters would see.
    delattr(module, name)
    module.register_parameter(name, torch.nn.Parameter(value, requires_grad=False))


@torch.no_grad()
def folded_batch_norm(conv: torch.nn.Conv1d, norm: torch.nn.BatchNorm1d) -> torch.nn.Conv1d:
    """The convolution that computes what `conv` and then `norm` (in eval mode) compute: one site, no norm."""
    assert norm.running_mean is not None and norm.running_var is not None
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    bias = torch.zeros_like(norm.bias) if conv.bias is None else conv.bias
    folded = torch.nn.Conv1d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size[0],
        conv.stride[0],
        conv.padding if isinstance(conv.padding, str) else conv.padding[0],
        conv.dilation[0],
        conv.groups,
    )
    folded.weight.copy_(conv.weight * factor[:, None, None])
    assert folded.bias is not None
    folded.bias.copy_((bias - norm.running_mean) * factor + norm.bias)
    return folded.requires_grad_(False).eval()
