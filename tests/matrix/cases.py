"""The cells of the matrix: what runs a layer, in which file, and what it must compute.

One file holds the same layer at every width that its target stores, and so has an output for each.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower

from bitvox.compiler.passes.plan import WIDTHS, Range
from bitvox.exporters.executorch.quiet import quiet
from bitvox.exporters.executorch.stock import StockSite, stored_form
from bitvox.exporters.onnx.data_file import DATA_FILE, DataWriter
from bitvox.exporters.onnx.forms import SiteWriter
from bitvox.exporters.onnx.resident import DOMAIN
from bitvox.exporters.onnx.weights import GraphWriter
from bitvox.runtime_kernels.adapters.executorch import operators  # noqa: F401 - registers them
from layers import KINDS, DoubleArray, FloatArray, Layer, random_input, random_layer

# Sums in another order, in float32.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Case:
    """One file: a kind of layer for a target.

    `static`: its activations are rounded on a calibrated grid, and else on one of their own.
    """

    target: str
    kernels: str
    kind: str
    static: bool

    def __str__(self) -> str:
        return f"{self.target} {self.kernels}, {self.kind}, {'static' if self.static else 'dynamic'}"

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths that the target stores."""
        if (self.target, self.kernels) != ("executorch", "stock"):
            return WIDTHS
        site = random_layer(8, self.kind, self.static).site.site
        return tuple(bits for bits in WIDTHS if stored_form(site, bits, "static")[0] == bits)

    def layer(self, bits: int) -> Layer:
        """The layer at one width."""
        return random_layer(bits, self.kind, self.static)

    @property
    def x(self) -> FloatArray:
        """The input, the same at every width."""
        return random_input(self.layer(8))

    def expected(self, bits: int) -> DoubleArray:
        """What the NumPy specification computes."""
        layer, x = self.layer(bits), self.x
        if self.kernels == "packed" or self.static:
            return layer.expected(x)
        # ONNX Runtime ranges all of a tensor, XNNPACK each row of it.
        return layer.multiplied(x, *_rounded_by_range(x, by_row=self.target == "executorch"))

    def tolerance(self, bits: int) -> float:
        """Largest difference of an output: float32's own, and for a stock convolution, whose bias is whole
        steps of its products and whose output is 8 bits, half a step of each."""
        layer, expected = self.layer(bits), self.expected(bits)
        tolerance = _ROUNDING * float(np.abs(expected).max())
        if self.kernels == "stock" and self.kind != "linear":
            tolerance += (layer.x_scale * float(layer.scale.max()) + _span(expected).scale) / 2
        return tolerance

    def write(self, folder: Path) -> None:
        """Write the file and its input `x.npy` into a folder."""
        folder.mkdir(parents=True)
        np.save(folder / "x.npy", self.x)
        layers = [self.layer(bits) for bits in self.widths]
        spans = [_span(self.expected(bits)) for bits in self.widths]
        if self.target == "onnx":
            _write_onnx(folder, layers, spans, self.kernels == "packed")
        else:
            _write_executorch(folder, layers, spans, self.kernels == "packed", self.x)


def _is_stored(target: str, kernels: str, kind: str, static: bool) -> bool:
    """Stock kernels range a convolution by calibration alone, and XNNPACK a linear when it runs."""
    if kernels == "packed":
        return True
    return static if kind != "linear" else not static or target == "onnx"


CASES = tuple(
    Case(*cell)
    for cell in itertools.product(("onnx", "executorch"), ("stock", "packed"), KINDS, (True, False))
    if _is_stored(*cell)
)


def _rounded_by_range(x: FloatArray, by_row: bool) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """x [..., K] on the 256 steps between its extremes: steps from zero [M, K] and their sizes [M]."""
    rows = x.reshape(-1, x.shape[-1])
    blocks = rows if by_row else x.reshape(1, -1)
    low, high = np.minimum(blocks.min(axis=1), 0), np.maximum(blocks.max(axis=1), 0)
    scale = (high - low) / np.float32(255)
    zero = np.rint(-low / scale)[:, None]
    steps = np.clip(np.rint(blocks / scale[:, None]) + zero, 0, 255) - zero
    return steps.reshape(rows.shape).astype(np.int64), np.repeat(scale, len(rows) // len(blocks))


def _span(values: DoubleArray) -> Range:
    return Range(float(values.min()), float(values.max()))


def _write_onnx(folder: Path, layers: Sequence[Layer], spans: Sequence[Range], packed: bool) -> None:
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([None, None, None]))
    outputs = [
        ir.Value(name=f"y{layer.bits}", type=ir.TensorType(ir.DataType.FLOAT), shape=x.shape)
        for layer in layers
    ]
    graph = ir.Graph([x], outputs, nodes=[], opset_imports={"": 20, DOMAIN: 1}, name="layer")
    writer = GraphWriter(graph, prefix="q")
    sites = SiteWriter(writer)
    with (folder / DATA_FILE).open("wb") as stream:
        data = DataWriter(graph, stream, folder, "packed", "packed" if packed else "stock")
        for index, (layer, span, y) in enumerate(zip(layers, spans, outputs, strict=True)):
            sites.write(data.store_site(index, layer.site, packed), layer.plan(span), x, y)
            graph.extend(writer.take_nodes())
        data.move_initializers()
    model = ir.to_proto(ir.Model(graph, ir_version=10))
    (folder / "model.onnx").write_bytes(model.SerializeToString())


class _PackedLayer(torch.nn.Module):
    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("weight", torch.from_numpy(layer.packed.copy()))
        self.register_buffer("bias", torch.from_numpy(layer.bias))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layer = self.layer
        arguments: tuple[object, ...] = (x, self.weight, self.bias, len(layer.codes))
        rounding = ("none", layer.x_scale, layer.x_zero)
        if layer.codes.ndim == 2:
            return torch.ops.bitvox.linear(*arguments, *rounding)  # type: ignore[no-any-return]
        geometry = (layer.codes.shape[2], layer.stride, layer.padding, layer.dilation, layer.groups)
        return torch.ops.bitvox.conv1d(*arguments, *geometry, *rounding)  # type: ignore[no-any-return]


class _All(torch.nn.Module):
    def __init__(self, parts: Sequence[torch.nn.Module]) -> None:
        super().__init__()
        self.parts = torch.nn.ModuleList(parts)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(part(x) for part in self.parts)


def _write_executorch(
    folder: Path, layers: Sequence[Layer], spans: Sequence[Range], packed: bool, x: FloatArray
) -> None:
    parts: list[torch.nn.Module] = []
    for layer, span in zip(layers, spans, strict=True):
        site = layer.site.site
        stock = StockSite(site, layer.weight, layer.bias, layer.plan(span))
        parts.append(_PackedLayer(layer) if packed else stock)
    with quiet():
        exported = torch.export.export(_All(parts).eval(), (torch.from_numpy(x),))
        edge = to_edge_transform_and_lower(
            exported,
            partitioner=[XnnpackPartitioner()],
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
        program = edge.to_executorch(ExecutorchBackendConfig(constant_tensor_alignment=64))
    (folder / "model.pte").write_bytes(bytes(program.buffer))
