"""What the ONNX target charges for each decision, measured on a graph of one site rather than guessed."""

from __future__ import annotations

import copy
import io
from functools import cache
from pathlib import Path

import numpy as np
import onnx_ir as ir

from bitvox.compiler.frontend.model import ConvGeometry, Site, SpeechModel
from bitvox.compiler.lowering.header import HEADER_BYTES
from bitvox.compiler.lowering.packed import PackedSite, pack_weight, packed_bytes
from bitvox.compiler.passes.plan import Activations, Granularity, Kernels, Range, SitePlan, Storage
from bitvox.exporters.onnx.build import halve_constants
from bitvox.exporters.onnx.data_file import DataWriter
from bitvox.exporters.onnx.forms import SiteWriter
from bitvox.exporters.onnx.resident import aligned, resident_bytes
from bitvox.exporters.onnx.skeleton import DOMAIN, load_skeleton
from bitvox.exporters.onnx.standard import stored_form
from bitvox.exporters.onnx.weights import GraphWriter, is_half

_TOY_CHANNELS, _TOY_KERNEL = 64, 2


class OnnxCosts:
    """Bytes of a bundle for the ONNX target (a `ByteCosts`).

    `fixed` knows the graph alone. `corrected` takes in the rest (manifest, unpack tables) once a bundle of
    the model has been written.
    """

    def __init__(self, model: SpeechModel, skeleton: bytes, storage: Storage, kernels: Kernels) -> None:
        self._storage: Storage = storage
        self._kernels: Kernels = kernels
        self.fixed = _skeleton_bytes(skeleton)
        self._bias_bytes = {site.name: _bias_bytes(model, site) for site in model.sites}

    def corrected(self, missed: int) -> OnnxCosts:
        """The same costs with `missed` more bytes for what no plan changes."""
        costs = copy.copy(self)
        costs.fixed += missed
        return costs

    def site(self, site: Site, bits: int | None, granularity: Granularity, activations: Activations) -> int:
        """Bytes of one site: header, codes, scales, bias and graph."""
        bits, activations = stored_form(site, bits, activations, self._storage)
        mode: Activations = "float" if bits is None else activations
        resident = self._kernels == "packed" and mode != "float"
        integer_bias = site.operator == "conv1d" and mode == "static" and not resident
        bias = 4 * site.channels if integer_bias and site.has_bias else self._bias_bytes[site.name]
        graph = _graph_bytes(
            site.operator == "linear", site.has_bias, bits, granularity, mode, self._storage, resident
        )
        return self._weight_bytes(site, bits, granularity, resident) + bias + graph

    def _weight_bytes(self, site: Site, bits: int | None, granularity: Granularity, resident: bool) -> int:
        if bits is None:
            size = 2 * site.weights
        elif resident:
            size = resident_bytes(site, bits)
        else:
            header = HEADER_BYTES if self._storage == "packed" else 0
            size = header + packed_bytes(site, bits, granularity)
        return aligned(size) if self._kernels == "packed" else size


def _bias_bytes(model: SpeechModel, site: Site) -> int:
    bias = model.site_module(site).bias
    if bias is None:
        return 0
    return bias.numel() * (2 if is_half(bias.detach().numpy()) else 4)


def _skeleton_bytes(skeleton: bytes) -> int:
    return sum(_graph_file_bytes(model) for model in load_skeleton(skeleton).values())


def _graph_file_bytes(model: ir.Model) -> int:
    halve_constants(model.graph)
    proto = ir.to_proto(model)
    placeholders = sum(node.ByteSize() for node in proto.graph.node if node.domain == DOMAIN)
    del proto.graph.value_info[:]
    return proto.ByteSize() - placeholders


@cache
def _graph_bytes(
    linear: bool,
    has_bias: bool,
    bits: int | None,
    granularity: Granularity,
    mode: Activations,
    storage: Storage,
    resident: bool,
) -> int:
    """Bytes that one site adds to the graph beside its tensors, read off a graph that holds nothing else."""
    shape = (_TOY_CHANNELS, _TOY_CHANNELS) if linear else (_TOY_CHANNELS, _TOY_CHANNELS, _TOY_KERNEL)
    geometry = None if linear else ConvGeometry(stride=1, padding=0, dilation=1, groups=1)
    site = Site("s", "linear" if linear else "conv1d", shape, "linear", "s", has_bias, geometry)
    weight = np.ones(shape, np.float32)
    packed = PackedSite(
        site,
        weight.astype(np.float16) if bits is None else pack_weight(weight, bits, granularity, 1.0),
        np.zeros(_TOY_CHANNELS, np.float32) if has_bias else None,
    )
    plan = SitePlan(
        "s",
        bits,
        granularity,
        mode,
        input_range=Range(-1.0, 1.5),
        output_range=Range(-1.0, 1.25),
    )
    return _graph_overhead(packed, plan, storage, resident)


def _graph_overhead(packed: PackedSite, plan: SitePlan, storage: Storage, resident: bool) -> int:
    x, y = ir.Value(name="aaa"), ir.Value(name="aab")
    graph = ir.Graph([x], [y], nodes=[], opset_imports={"": 20}, name="g")
    empty = ir.to_proto(graph).ByteSize()
    writer = GraphWriter(graph, prefix="qqq")
    data = DataWriter(graph, io.BytesIO(), Path(), storage, "packed" if resident else "stock")
    stored = data.store_site(100, packed, resident)
    SiteWriter(writer).write(stored, plan, x, y)
    graph.extend(writer.take_nodes())
    proto = ir.to_proto(graph)
    del proto.value_info[:]
    tensors = sum(len(initializer.raw_data) for initializer in proto.initializer)
    return proto.ByteSize() - empty - tensors
