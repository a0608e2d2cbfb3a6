"""`model.onnx.data`: every large tensor, packed ones behind a header, so that the file can be walked without
the graph.

    [header 64 bytes][planes][scales float16]   for each packed site, in execution order
    [tensor]                                    for each plain tensor (norms, biases, full-precision weights)

ONNX initializers point at the planes and scales; the header is for people, for `verify` and for kernels that
map it. With packed kernels the weight of a site is one tensor in the kernels' own layout, which has a header
of its own, and starts on a multiple of 64 bytes:

    [packed weight][padding]
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bitvox.compiler.lowering.header import PackedHeader
from bitvox.compiler.lowering.packed import PackedSite, PackedTensor
from bitvox.compiler.passes.plan import Kernels, Storage
from bitvox.exporters.onnx.forms import StoredWeight
from bitvox.exporters.onnx.resident import ALIGNMENT, resident_weight
from bitvox.exporters.onnx.standard import is_typed, typed_bytes, typed_tensor
from bitvox.exporters.onnx.weights import plane_arrays

DATA_FILE = "model.onnx.data"

# Smaller tensors stay in the graph: a pointer to external data costs about a hundred bytes.
_SMALLEST_EXTERNAL = 4096


class DataWriter:
    """Appends tensors to the data file and hands out initializers that point at them."""

    def __init__(
        self, graph: ir.Graph, stream: BinaryIO, folder: Path, storage: Storage, kernels: Kernels
    ) -> None:
        self._graph = graph
        self._stream = stream
        self._folder = folder
        self._storage = storage
        self._kernels = kernels

    def store_site(self, index: int, packed: PackedSite, resident: bool = False) -> StoredWeight:
        """Write the weight of one site, `resident` in the kernels' layout; `index` names its initializers."""
        stored = self._store_resident(index, packed) if resident else self._store_planes(index, packed)
        if self._kernels == "packed":
            self._stream.write(bytes(-self._stream.tell() % ALIGNMENT))
        return stored

    def _store_resident(self, index: int, packed: PackedSite) -> StoredWeight:
        assert isinstance(packed.weight, PackedTensor)
        weight = self._append(f"w{index}", resident_weight(packed.weight))
        return StoredWeight(packed, (weight,), None, resident=True)

    def _store_planes(self, index: int, packed: PackedSite) -> StoredWeight:
        weight = packed.weight
        if not isinstance(weight, PackedTensor):
            return StoredWeight(packed, (self._append(f"w{index}", weight),), None)
        scale = weight.scale if weight.granularity == "channel" else weight.scale.reshape(())
        if is_typed(weight, self._storage):
            dtype, shape = typed_tensor(weight)
            typed = self._register(self._external(f"w{index}", typed_bytes(weight), dtype, shape))
            return StoredWeight(packed, (typed,), self._append(f"w{index}.s", scale), typed=True)
        planes = plane_arrays(weight)
        if self._storage == "packed":
            self._stream.write(_header(weight, planes).encode())
        if packed.site.tied:  # a row of a plane is whole bytes, and can be looked up
            planes = [plane.reshape(packed.site.channels, -1) for plane in planes]
        stored = tuple(self._append(f"w{index}.{i}", plane) for i, plane in enumerate(planes))
        return StoredWeight(packed, stored, self._append(f"w{index}.s", scale))

    def move_initializers(self) -> None:
        """Move every initializer that is large enough from the graph to the file."""
        for value in list(self._graph.initializers.values()):
            tensor = value.const_value
            if tensor is None or isinstance(tensor, ir.ExternalTensor) or tensor.nbytes < _SMALLEST_EXTERNAL:
                continue
            assert value.name is not None
            array = tensor.numpy()
            value.const_value = self._external(value.name, array, tensor.dtype, array.shape)

    def _append(self, name: str, array: npt.NDArray[Any]) -> ir.Value:
        return self._register(self._external(name, array, ir.DataType.from_numpy(array.dtype), array.shape))

    def _register(self, tensor: ir.ExternalTensor) -> ir.Value:
        value = ir.Value(
            name=tensor.name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor
        )
        self._graph.register_initializer(value)
        return value

    def _external(
        self, name: str, array: npt.NDArray[Any], dtype: ir.DataType, shape: tuple[int, ...]
    ) -> ir.ExternalTensor:
        offset = self._stream.tell()
        self._stream.write(np.ascontiguousarray(array).tobytes())
        return ir.ExternalTensor(
            DATA_FILE, offset, array.nbytes, dtype, shape=ir.Shape(shape), name=name, base_dir=self._folder
        )


def _header(weight: PackedTensor, planes: Sequence[npt.NDArray[Any]]) -> PackedHeader:
    crc = 0
    for part in (*planes, weight.scale):
        crc = zlib.crc32(np.ascontiguousarray(part).tobytes(), crc)
    return PackedHeader(
        bits=weight.bits,
        shape=weight.shape,
        granularity=weight.granularity,
        twos_complement=weight.bits == 8,
        planes_bytes=weight.planes.nbytes,
        scales_bytes=weight.scale.nbytes,
        crc32=crc,
    )
