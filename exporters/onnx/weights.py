"""Weights and small constants as ONNX initializers: packed planes that unfold to int8, float16 where
lossless.

Stock ONNX Runtime has no 3-, 5-, 6- or 7-bit type, but folds constant subgraphs at load. Each plane is a
uint8 initializer; a table of 256 rows maps a byte to the int8 contributions of its codes (shifted into place,
the offset taken off by the first plane), and the planes add up:

    plane -> Cast int32 -> Gather(table[256, 8 / width]) -> Reshape [-1] -> (Slice off the padding) -> Add ->
    Reshape

The file keeps n bits a weight; after the fold the session holds int8 and its integer kernels apply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.tape import Tape

from bitvox.compiler.lowering.packed import PackedTensor
from bitvox.compiler.lowering.planes import plane_shifts, plane_sizes, plane_widths


class GraphWriter:
    """Collects new nodes and initializers for one graph; equal constants are stored once.

    Names are a prefix and a counter, so that they are short and the same on every run.
    """

    def __init__(self, graph: ir.Graph, prefix: str) -> None:
        self._graph = graph
        self._prefix = prefix
        self._shared: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._names = 0
        self.tape = Tape()

    def take_nodes(self) -> list[ir.Node]:
        """The nodes written since the last call, in order."""
        nodes = list(self.tape.nodes)
        self.tape = Tape()
        return nodes

    def fresh(self) -> str:
        """A name that nothing else in the graph has."""
        self._names += 1
        return f"{self._prefix}{self._names:x}"

    def op(
        self,
        kind: str,
        inputs: Sequence[ir.Value | None],
        output: ir.Value | None = None,
        attributes: Mapping[str, int | float | str | Sequence[int]] | None = None,
        domain: str = "",
    ) -> ir.Value:
        """Append a node with one output and return it."""
        output = output or ir.Value(name=self.fresh())
        return self.tape.op(kind, inputs, attributes, domain=domain, output=output)

    def constant(self, array: npt.NDArray[Any] | np.generic) -> ir.Value:
        """A small constant, stored once however often it is asked for."""
        array = np.asarray(array)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._shared:
            self._shared[key] = self.initializer(array)
        return self._shared[key]

    def initializer(self, array: npt.NDArray[Any]) -> ir.Value:
        """An initializer of its own."""
        name = self.fresh()
        tensor = ir.tensor(np.ascontiguousarray(array), name=name)
        shape = ir.Shape(array.shape)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)
        self._graph.register_initializer(value)
        return value


def float_constant(writer: GraphWriter, array: npt.NDArray[np.float32]) -> ir.Value:
    """A float32 tensor, stored as float16 where that loses nothing (a float16 checkpoint) and cast back at
    load."""
    if is_half(array):
        return writer.op(
            "Cast", [writer.initializer(array.astype(np.float16))], attributes={"to": ir.DataType.FLOAT}
        )
    return writer.initializer(array)


def is_half(array: npt.NDArray[np.float32]) -> bool:
    """Whether float16 holds every value exactly, in a tensor large enough for the cast to pay."""
    return array.size >= _SMALLEST_HALF and np.array_equal(array.astype(np.float16).astype(np.float32), array)


_SMALLEST_HALF = 32


def int8_weight(writer: GraphWriter, packed: PackedTensor, planes: Sequence[ir.Value]) -> ir.Value:
    """Signed codes of a packed weight as int8 of its shape, from the initializers of its planes."""
    if packed.bits == 8:
        return planes[0]
    parts = [_unfold_plane(writer, plane, packed, index) for index, plane in enumerate(planes)]
    total = parts[0]
    for part in parts[1:]:
        total = writer.op("Add", [total, part])
    return writer.op("Reshape", [total, writer.constant(np.array(packed.shape, np.int64))])


def looked_up_codes(
    writer: GraphWriter, packed: PackedTensor, planes: Sequence[ir.Value], tokens: ir.Value
) -> ir.Value:
    """Signed codes of the rows of a packed weight [N, K] at `tokens` [...], int8 [..., K].

    Only those rows are unfolded, on every run; what multiplies with the weight has it unfolded at load.
    """
    if packed.bits == 8:
        return writer.op("Gather", [planes[0], tokens])
    parts = []
    for index, plane in enumerate(planes):
        rows = writer.op("Gather", [plane, tokens])
        numbers = writer.op("Cast", [rows], attributes={"to": ir.DataType.INT32})
        unfolded = writer.op("Gather", [writer.constant(unpack_table(packed.bits, index)), numbers])
        parts.append(writer.op("Reshape", [unfolded, writer.constant(np.array([0, 0, -1], np.int64))]))
    total = parts[0]
    for part in parts[1:]:
        total = writer.op("Add", [total, part])
    return total


def _unfold_plane(writer: GraphWriter, plane: ir.Value, packed: PackedTensor, index: int) -> ir.Value:
    table = writer.constant(unpack_table(packed.bits, index))
    rows = writer.op("Gather", [table, writer.op("Cast", [plane], attributes={"to": ir.DataType.INT32})])
    flat = writer.op("Reshape", [rows, writer.constant(np.array([-1], np.int64))])
    if packed.count % (8 // plane_widths(packed.bits)[index]) == 0:
        return flat
    start, end = (writer.constant(np.array([bound], np.int64)) for bound in (0, packed.count))
    return writer.op("Slice", [flat, start, end])


def unpack_table(bits: int, plane: int) -> npt.NDArray[np.int8]:
    """Contribution of every byte of a plane to its codes, int8 [256, codes per byte]."""
    width, shift = plane_widths(bits)[plane], plane_shifts(bits)[plane]
    slots = np.arange(8 // width) * width
    values = ((np.arange(256)[:, None] >> slots) & ((1 << width) - 1)) << shift
    offset = 1 << (bits - 1) if plane == 0 else 0
    return (values - offset).astype(np.int8)


def plane_arrays(packed: PackedTensor) -> list[npt.NDArray[np.uint8] | npt.NDArray[np.int8]]:
    """The stored bytes of each plane; 8-bit codes as the int8 that ONNX has a type for, in the weight's
    shape."""
    if packed.bits == 8:
        return [packed.signed_codes()]
    bounds = np.cumsum(plane_sizes(packed.bits, packed.count))[:-1]
    return list(np.split(packed.planes, bounds))
