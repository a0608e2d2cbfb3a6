"""Skeleton + packed model -> one `.onnx` file per graph and `model.onnx.data`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import onnx
import onnx_ir as ir

from bitvox.compiler.lowering.packed import PackedModel
from bitvox.exporters.onnx.attention import fuse_attention
from bitvox.exporters.onnx.data_file import DATA_FILE, DataWriter
from bitvox.exporters.onnx.forms import SiteValues, SiteWriter, StoredWeight
from bitvox.exporters.onnx.norms import fuse_norms, is_exact_gelu, sole_reader
from bitvox.exporters.onnx.session import SUFFIX
from bitvox.exporters.onnx.skeleton import DOMAIN, LOOKUP, load_skeleton
from bitvox.exporters.onnx.standard import needed_versions
from bitvox.exporters.onnx.weights import GraphWriter, float_constant, is_half


@dataclass(frozen=True)
class WrittenGraph:
    """The file of one graph, and where each of its sites is in it."""

    name: str
    file: Path
    sites: dict[str, SiteValues]


@dataclass(frozen=True)
class WrittenModel:
    """The graphs, and the one file of the tensors that they read."""

    graphs: tuple[WrittenGraph, ...]
    data: Path

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file."""
        return (*(graph.file for graph in self.graphs), self.data)

    @property
    def operators(self) -> tuple[str, ...]:
        """Every operator that the graphs need, as `domain:Name`."""
        protos = (onnx.load(graph.file, load_external_data=False) for graph in self.graphs)
        nodes = (node for proto in protos for node in proto.graph.node)
        return tuple(sorted({f"{node.domain or 'ai.onnx'}:{node.op_type}" for node in nodes}))


def write_model(skeleton: bytes, packed: PackedModel, folder: Path) -> WrittenModel:
    """Write the packed model into `folder`; the same inputs give the same bytes.

    Args:
        skeleton: From `build_skeleton`.
        packed: Weights of every site, in the order of `SpeechModel.sites`.
        folder: Existing folder.
    """
    models = load_skeleton(skeleton)
    if packed.plan.kernels == "packed":
        for model in models.values():
            fuse_norms(model)
        fuse_attention(models)
    with (folder / DATA_FILE).open("wb") as stream:
        graphs = tuple(_write_graph(name, model, packed, stream, folder) for name, model in models.items())
    return WrittenModel(graphs, folder / DATA_FILE)


def _write_graph(
    name: str, model: ir.Model, packed: PackedModel, stream: BinaryIO, folder: Path
) -> WrittenGraph:
    data = DataWriter(model.graph, stream, folder, packed.plan.storage, packed.plan.kernels)
    sites = _write_sites(model.graph, packed, data)
    halve_constants(model.graph)
    data.move_initializers()
    if not any(node.domain == DOMAIN for node in model.graph):
        model.opset_imports.pop(DOMAIN, None)
    opset, ir_version = needed_versions(packed.plan)
    model.opset_imports[""] = max(model.opset_imports[""], opset)
    model.ir_version = max(model.ir_version, ir_version)
    proto = ir.to_proto(model)
    del proto.graph.value_info[:]  # restates the initializers' types
    file = folder / f"{name}{SUFFIX}"
    file.write_bytes(proto.SerializeToString(deterministic=True))
    return WrittenGraph(name, file, sites)


def _write_sites(graph: ir.Graph, packed: PackedModel, data: DataWriter) -> dict[str, SiteValues]:
    sites: dict[str, SiteValues] = {}
    looked_up: dict[str, tuple[str, str]] = {}
    writer = GraphWriter(graph, prefix="q")
    site_writer = SiteWriter(writer)
    nodes = [node for node in graph if node.domain == DOMAIN and "index" in node.attributes]
    weights = _store_sites(sorted({node.attributes["index"].as_int() for node in nodes}), packed, data)
    for node in nodes:
        weight = weights[node.attributes["index"].as_int()]
        site = weight.packed.site
        x = node.inputs[0]
        assert x is not None
        if node.op_type == LOOKUP:
            output = ir.Value(name=node.outputs[0].name)
            looked_up[site.name] = site_writer.look_up(weight, x, output)
            _replace(graph, [node], writer.take_nodes(), output)
            continue
        gelu = _gelu_after(node) if weight.resident else None
        last = gelu or node
        output = ir.Value(name=last.outputs[0].name)
        entry = packed.plan.site(site.name)
        sites[site.name] = site_writer.write(weight, entry, x, output, gelu is not None)
        _replace(graph, [node, gelu] if gelu else [node], writer.take_nodes(), output)
    for name, values in looked_up.items():
        sites[name] = dataclasses.replace(sites[name], lookup=values)
    return sites


def _store_sites(indices: Sequence[int], packed: PackedModel, data: DataWriter) -> dict[int, StoredWeight]:
    """The weights of those sites, written in their order, whatever reads them first."""
    stored = {}
    for index in indices:
        site = packed.sites[index]
        resident = packed.plan.computes_packed(packed.plan.site(site.site.name))
        stored[index] = data.store_site(index, site, resident)
    return stored


def _gelu_after(node: ir.Node) -> ir.Node | None:
    """The exact GELU that alone reads a site's output, if there is one."""
    reader = sole_reader(node)
    return reader if reader is not None and is_exact_gelu(reader) else None


def _replace(graph: ir.Graph, old: list[ir.Node], nodes: list[ir.Node], output: ir.Value) -> None:
    replaced = old[-1].outputs[0]
    output.type, output.shape = replaced.type, replaced.shape
    ir.convenience.replace_nodes_and_values(graph, old[-1], old, nodes, [replaced], [output])
    for position, value in enumerate(graph.outputs):
        if value is replaced:
            graph.outputs[position] = output


def halve_constants(graph: ir.Graph) -> None:
    """Store the model's own float tensors (norms) as float16 where nothing is lost."""
    writer = GraphWriter(graph, prefix="h")
    for value in list(graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or isinstance(tensor, ir.ExternalTensor):
            continue
        if not is_half(tensor.numpy()):
            continue
        ir.convenience.replace_all_uses_with(value, float_constant(writer, tensor.numpy()))
        assert value.name is not None
        graph.initializers.pop(value.name)
    graph.insert_before(next(iter(graph)), writer.take_nodes())
