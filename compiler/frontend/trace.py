"""Trace a prepared model with every site as one opaque operator: exporters decide how it is computed.

The traced program holds no site weight: a site is `bitvox::linear_site(x, index, …)`,
`bitvox::lookup_site(tokens, index, …)` or `bitvox::conv1d_site(x, index, …)`, `index` counting
`SpeechModel.sites`. Everything else (norms, attention,
activations) is traced as it is.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bitvox.compiler.frontend.graphs import Graph
from bitvox.compiler.frontend.model import Site, SpeechModel
from bitvox.errors import InputError


@torch.library.custom_op("bitvox::linear_site", mutates_args=())
def linear_site(x: torch.Tensor, index: int, channels: int) -> torch.Tensor:
    """Stands for a linear site: [..., K] -> [..., channels]."""
    return x.new_zeros((*x.shape[:-1], channels))


@linear_site.register_fake
def _(x: torch.Tensor, index: int, channels: int) -> torch.Tensor:
    return x.new_empty((*x.shape[:-1], channels))


@torch.library.custom_op("bitvox::lookup_site", mutates_args=())
def lookup_site(tokens: torch.Tensor, index: int, width: int) -> torch.Tensor:
    """Stands for rows of a tied linear site: [...] -> [..., width]."""
    return torch.zeros((*tokens.shape, width))


@lookup_site.register_fake
def _(tokens: torch.Tensor, index: int, width: int) -> torch.Tensor:
    return torch.empty((*tokens.shape, width))


@torch.library.custom_op("bitvox::conv1d_site", mutates_args=())
def conv1d_site(
    x: torch.Tensor, index: int, channels: int, kernel: int, stride: int, padding: int, dilation: int
) -> torch.Tensor:
    """Stands for a Conv1d site: [B, C, T] -> [B, channels, T']."""
    return x.new_zeros((x.shape[0], channels, _frames(x.shape[-1], kernel, stride, padding, dilation)))


@conv1d_site.register_fake
def _(
    x: torch.Tensor, index: int, channels: int, kernel: int, stride: int, padding: int, dilation: int
) -> torch.Tensor:
    return x.new_empty((x.shape[0], channels, _frames(x.shape[-1], kernel, stride, padding, dilation)))


def _frames(length: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return (length + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


class _LinearSite(torch.nn.Module):
    def __init__(self, index: int, site: Site) -> None:
        super().__init__()
        self.index, (self.channels, self.depth) = index, site.shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.bitvox.linear_site(x, self.index, self.channels)

    def lookup(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.ops.bitvox.lookup_site(tokens, self.index, self.depth)


class _Conv1dSite(torch.nn.Module):
    def __init__(self, index: int, site: Site) -> None:
        super().__init__()
        assert site.conv is not None
        geometry = site.conv
        self.index = index
        self.geometry = (site.channels, site.shape[-1], geometry.stride, geometry.padding, geometry.dilation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.bitvox.conv1d_site(x, self.index, *self.geometry)


def trace(model: SpeechModel, graph: Graph) -> torch.export.ExportedProgram:
    """Program of one graph, its lengths dynamic, sites opaque.

    Raises:
        InputError: The module cannot be traced; carries torch.export's first line.
    """
    with _opaque_sites(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.export.export(
                graph.bound(model.module),
                tuple(port.example() for port in graph.inputs),
                dynamic_shapes=graph.dynamic_shapes(),
                # The frame count is a chain of floor divisions; guards on it would pin T to multiples of the
                # stride.
                prefer_deferred_runtime_asserts_over_guards=True,
            )
        except Exception as error:  # torch.export raises many types, each with the reason in its first line
            reason = " ".join(str(error).split())
            raise InputError(f"model '{model.source}': cannot be traced ({reason[:300]})") from error


@contextmanager
def _opaque_sites(model: SpeechModel) -> Iterator[None]:
    originals = {site.name: model.site_module(site) for site in model.sites}
    try:
        for index, site in enumerate(model.sites):
            stand_in = _LinearSite(index, site) if site.operator == "linear" else _Conv1dSite(index, site)
            model.module.set_submodule(site.name, stand_in)
        yield
    finally:
        for name, original in originals.items():
            model.module.set_submodule(name, original)
