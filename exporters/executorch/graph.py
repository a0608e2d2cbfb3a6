"""The traced model with every site in the form in which ExecuTorch will run it.

Tracing left each site as one opaque node (`bitvox.compiler.frontend.trace`). Here it becomes a call of
bitvox's operator, with a placeholder for the packed weight, or a torch operator that XNNPACK takes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from bitvox.compiler.frontend.model import Site
from bitvox.compiler.lowering.packed import PackedModel, PackedSite, PackedTensor
from bitvox.compiler.passes.plan import Kernels, QuantPlan
from bitvox.exporters.executorch.attention import fuse_attention
from bitvox.exporters.executorch.halves import store_halves
from bitvox.exporters.executorch.norms import fuse_norms, only_gelu
from bitvox.exporters.executorch.products import plain_products
from bitvox.exporters.executorch.program import placeholder
from bitvox.exporters.executorch.stock import StockSite
from bitvox.exporters.executorch.tied import TiedProduct, TiedRows
from bitvox.runtime_kernels.adapters.executorch import operators  # noqa: F401 - registers them

FloatArray = npt.NDArray[np.float32]

# Name of the buffer that holds the weight of a site, before its index; a placeholder for bitvox's operator.
WEIGHT_NAME = "site_weight"

_aten = torch.ops.aten


@dataclass(frozen=True)
class SiteForm:
    """How one site is written: for XNNPACK with a float32 `weight` or as a quantised layer `stock`, or else
    for bitvox's operator."""

    site: Site
    bias: FloatArray | None
    weight: FloatArray | None = None
    stock: StockSite | None = None

    @property
    def is_operator(self) -> bool:
        """Whether bitvox's operator computes it."""
        return self.weight is None and self.stock is None

    @property
    def digest(self) -> bytes:
        """SHA-256 of everything that lowering puts into a program."""
        found = hashlib.sha256(repr(self.site).encode())
        tensors = [self.bias, self.weight]
        if self.stock is not None:
            found.update(repr(self.stock.plan).encode())
            tensors += [self.stock.codes.numpy(), self.stock.scale.numpy()]
        for part in tensors:
            found.update(b"-" if part is None else part.tobytes())
        return found.digest()


@dataclass(frozen=True)
class Exposed:
    """Where a site's values are among the outputs of a graph that hands them all out.

    `activation` is what the output has gone through beside the site; `lookup` tells, of a tied site, where
    the tokens are that are looked up and where their rows.
    """

    input: int
    output: int
    activation: str
    lookup: tuple[int, int] | None = None

    def moved(self, place: Callable[[int], int]) -> Exposed:
        """The same where every output has come to another place."""
        lookup = self.lookup and (place(self.lookup[0]), place(self.lookup[1]))
        return Exposed(place(self.input), place(self.output), self.activation, lookup)


def packed_forms(packed: PackedModel) -> tuple[SiteForm, ...]:
    """The form of every site of a packed model."""
    return tuple(_form(stored, packed.plan) for stored in packed.sites)


def _form(stored: PackedSite, plan: QuantPlan) -> SiteForm:
    site, bias, weight = stored.site, stored.bias, stored.weight
    if not isinstance(weight, PackedTensor):
        return SiteForm(site, bias, weight=weight.astype(np.float32))
    if plan.kernels == "packed":
        return SiteForm(site, bias)
    return SiteForm(site, bias, stock=StockSite(site, weight, bias, plan.site(site.name)))


def write_forms(
    traced: torch.export.ExportedProgram, forms: Sequence[SiteForm], expose: bool
) -> tuple[torch.fx.GraphModule, dict[int, Exposed]]:
    """The graph with all sites written; with `expose`, their inputs and outputs follow its own outputs."""
    module = traced.module()
    graph = module.graph
    values: dict[int, tuple[torch.fx.Node, str]] = {}
    looked_up: dict[int, torch.fx.Node] = {}
    packed = any(form.is_operator for form in forms)
    for node in _site_nodes(graph):
        index = node.args[1]
        assert isinstance(index, int)
        form = forms[index]
        if node.target == torch.ops.bitvox.lookup_site.default:
            looked_up[index] = _look_up(module, node, index, form)
            continue
        gelu = only_gelu(node) if form.is_operator else None
        activation = "none" if gelu is None else "gelu"
        with graph.inserting_before(node):
            written = _write(module, node, index, form, activation, packed)
        written.meta["val"] = node.meta["val"]
        for replaced in (gelu, node):
            if replaced is not None:
                replaced.replace_all_uses_with(written)
                graph.erase_node(replaced)
        values[index] = (written, activation)
    if packed:
        fuse_norms(graph)
        fuse_attention(graph)
        plain_products(graph)
        store_halves(module)
    exposed = _expose(graph, values, looked_up) if expose else {}
    graph.lint()
    module.recompile()
    return module, exposed


def _site_nodes(graph: torch.fx.Graph) -> list[torch.fx.Node]:
    traced = torch.ops.bitvox
    sites = (traced.linear_site.default, traced.conv1d_site.default, traced.lookup_site.default)
    return [node for node in graph.nodes if node.target in sites]


def _write(
    module: torch.fx.GraphModule,
    node: torch.fx.Node,
    index: int,
    form: SiteForm,
    activation: str,
    packed: bool,
) -> torch.fx.Node:
    """`packed`: bitvox's library will be there, also for a site that is not quantised."""
    graph, site, x = module.graph, form.site, node.args[0]
    if site.tied and not form.is_operator:
        module.add_submodule(f"site{index}", TiedProduct(*_table(form)))
        return graph.call_module(f"site{index}", (x,))
    if form.stock is not None:
        module.add_submodule(f"site{index}", form.stock)
        return graph.call_module(f"site{index}", (x,))
    bias = None if form.bias is None else _constant(module, f"site_bias{index}", torch.from_numpy(form.bias))
    if form.weight is None:
        weight = _waiting(module, index)
        rounding = (activation, 0.0, 0)
        if site.conv is None:
            return graph.call_function(
                torch.ops.bitvox.linear.default, (x, weight, bias, site.channels, *rounding)
            )
        shape = site.conv
        geometry = (site.shape[2], shape.stride, shape.padding, shape.dilation, shape.groups)
        return graph.call_function(
            torch.ops.bitvox.conv1d.default, (x, weight, bias, site.channels, *geometry, *rounding)
        )
    weight = _constant(module, f"{WEIGHT_NAME}{index}", torch.from_numpy(form.weight))
    if site.conv is None:
        return graph.call_function(_aten.linear.default, (x, weight, bias))
    conv = site.conv
    if packed and filters_waveform(site):
        return graph.call_function(torch.ops.bitvox.wave_conv1d.default, (x, weight, bias, conv.stride))
    options = ([conv.stride], [conv.padding], [conv.dilation], conv.groups)
    return graph.call_function(_aten.conv1d.default, (x, weight, bias, *options))


def filters_waveform(site: Site) -> bool:
    """Whether a site is a convolution that `bitvox::wave_conv1d` computes: over samples, without padding.

    XNNPACK takes it for a depthwise one, of one channel with hundreds of outputs, and is many times slower.
    """
    if site.conv is None or site.shape[1] != 1 or site.conv.stride > site.shape[2]:
        return False
    return (site.conv.padding, site.conv.dilation, site.conv.groups) == (0, 1, 1)


def float_type(site: Site, kernels: Kernels) -> type[np.floating]:
    """Type in which a program holds the weight of a site at full precision, which float16 holds exactly."""
    return np.float16 if kernels == "packed" and filters_waveform(site) else np.float32


def _look_up(module: torch.fx.GraphModule, node: torch.fx.Node, index: int, form: SiteForm) -> torch.fx.Node:
    """Write the rows of a tied site's weight in place of the node that looks them up."""
    graph, tokens = module.graph, node.args[0]
    with graph.inserting_before(node):
        if form.is_operator:
            arguments = (tokens, _waiting(module, index), form.site.shape[1])
            rows = graph.call_function(torch.ops.bitvox.lookup.default, arguments)
        else:
            module.add_submodule(f"rows{index}", TiedRows(*_table(form)))
            rows = graph.call_module(f"rows{index}", (tokens,))
    rows.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(rows)
    graph.erase_node(node)
    return rows


def _table(form: SiteForm) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight of a tied site, and its scale where it holds codes."""
    if form.stock is not None:
        return form.stock.codes, form.stock.scale
    assert form.weight is not None
    return torch.from_numpy(form.weight), None


def _waiting(module: torch.fx.GraphModule, index: int) -> torch.fx.Node:
    """The place of a packed weight."""
    value = torch.frombuffer(bytearray(placeholder(index)), dtype=torch.uint8)
    return _constant(module, f"{WEIGHT_NAME}{index}", value)


def _constant(module: torch.fx.GraphModule, name: str, value: torch.Tensor) -> torch.fx.Node:
    """The buffer of that name; of a tied weight, the one that is there."""
    if name not in dict(module.named_buffers(recurse=False)):
        module.register_buffer(name, value)
    return module.graph.get_attr(name)


def node_of(value: object) -> torch.fx.Node:
    """An argument that is the value of a node."""
    assert isinstance(value, torch.fx.Node)
    return value


def _expose(
    graph: torch.fx.Graph,
    values: Mapping[int, tuple[torch.fx.Node, str]],
    looked_up: Mapping[int, torch.fx.Node],
) -> dict[int, Exposed]:
    output = graph.output_node()
    own = output.args[0]
    assert isinstance(own, list | tuple)
    # Their inputs are those that are left when norms and attention have been written. q, k and v read one
    # input: it is handed out once.
    written = [*(node for node, _ in values.values()), *looked_up.values()]
    read = [value for node in written for value in (node_of(node.args[0]), node)]
    place = {node: position for position, node in enumerate(dict.fromkeys([*own, *read]))}
    output.args = (tuple(place),)
    graph.set_codegen(torch.fx.graph.CodeGen())  # the traced one insists on its outputs
    exposed = {}
    for index, (node, activation) in values.items():
        rows = looked_up.get(index)
        lookup = None if rows is None else (place[node_of(rows.args[0])], place[rows])
        exposed[index] = Exposed(place[node_of(node.args[0])], place[node], activation, lookup)
    return exposed
