"""How a site is written: one function per (operator, activation mode).

What fuses, and what silently runs as float, was measured on stock ONNX Runtime: a linear site quantises its
input and leaves its output in float (MatMulIntegerToFloat), a convolution needs an 8-bit output too
(QLinearConv), ConvInteger is slower than float and never written, and a float site multiplies its scale in,
so that the weight folds to float32 instead of being dequantised on every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir
import torch

from bitvox.compiler.lowering.packed import PackedSite, PackedTensor
from bitvox.compiler.passes.plan import Range, SitePlan
from bitvox.compiler.passes.quantizer import conv_bias_codes
from bitvox.exporters.onnx.resident import DOMAIN, node_attributes
from bitvox.exporters.onnx.weights import GraphWriter, float_constant, int8_weight, looked_up_codes


@dataclass(frozen=True)
class SiteValues:
    """Names in the written graph by which a site is found again after the runtime has optimised it.

    Attributes:
        input: Float tensor that the site reads.
        output: Float tensor that it hands on.
        weight: Tensor that its multiplying node reads as the weight; the runtime keeps the name when it folds
            what leads to it, and moves everything else about (layouts, biases, activations).
        product: Output of that node; found by it where the runtime lays the weight out anew.
        activation: Function that the node applies last, so that `output` comes after it.
        lookup: Of a tied site, the tokens that are looked up and the float tensor of their rows.
    """

    input: str
    output: str
    weight: str
    product: str
    activation: Literal["gelu"] | None = None
    lookup: tuple[str, str] | None = None


@dataclass(frozen=True)
class StoredWeight:
    """Graph values of a stored weight: its planes and its float16 scale, or its one float tensor.

    `typed`: the one plane is an ONNX INT2 or INT4 tensor [K, N]. `resident`: it is the layout of bitvox's
    operator library, scales included.
    """

    packed: PackedSite
    planes: tuple[ir.Value, ...]
    scale: ir.Value | None
    typed: bool = False
    resident: bool = False


_Written = tuple[ir.Value, ir.Value]


class SiteWriter:
    """Writes the sites of one graph; q, k and v share one QuantizeLinear."""

    def __init__(self, writer: GraphWriter) -> None:
        self._writer = writer
        self._quantised: dict[tuple[str, Range | None], tuple[ir.Value, ...]] = {}

    def write(
        self, weight: StoredWeight, plan: SitePlan, x: ir.Value, output: ir.Value, gelu: bool = False
    ) -> SiteValues:
        """Add the nodes that compute `output` from `x`, with the GELU that follows where `gelu` says so.

        Only the node of a `resident` weight can take in a GELU.
        """
        linear = weight.packed.site.operator == "linear"
        if weight.resident:
            written = self._library_node(weight, plan, x, output, gelu)
        elif weight.typed:
            written = self._typed_linear(weight, x, output)
        elif plan.bits is None or plan.activations == "float":
            written = self._float_linear(weight, x, output) if linear else self._float_conv(weight, x, output)
        elif plan.activations == "dynamic":
            written = self._dynamic_linear(weight, x, output)
        elif linear:
            written = self._static_linear(weight, plan, x, output)
        else:
            written = self._static_conv(weight, plan, x, output)
        factor, product = written
        assert x.name and output.name and factor.name and product.name
        return SiteValues(x.name, output.name, factor.name, product.name, "gelu" if gelu else None)

    def look_up(self, weight: StoredWeight, tokens: ir.Value, output: ir.Value) -> tuple[str, str]:
        """Add the nodes that compute the rows of a tied site at `tokens`, from its weight as it is stored.

        Returns the names of the tokens and of the rows.
        """
        if weight.resident:
            channels, depth = weight.packed.site.shape
            sizes = {"N": channels, "K": depth}
            self._writer.op("NBitLookup", [tokens, weight.planes[0]], output, sizes, domain=DOMAIN)
        elif not isinstance(weight.packed.weight, PackedTensor):
            rows = self._writer.op("Gather", [weight.planes[0], tokens])
            self._writer.op("Cast", [rows], output, attributes={"to": ir.DataType.FLOAT})
        else:
            codes = looked_up_codes(self._writer, weight.packed.weight, weight.planes, tokens)
            floats = self._writer.op("Cast", [codes], attributes={"to": ir.DataType.FLOAT})
            self._writer.op("Mul", [floats, self._scale_of_rows(weight, tokens)], output)
        assert tokens.name and output.name
        return tokens.name, output.name

    def _scale_of_rows(self, weight: StoredWeight, tokens: ir.Value) -> ir.Value:
        if not _per_channel(weight):
            return self._scale(weight)
        scales = self._writer.op("Gather", [self._scale(weight), tokens])
        return self._writer.op("Unsqueeze", [scales, self._writer.constant(np.array([-1], np.int64))])

    # Each form returns the weight as its multiplying node, or the DequantizeLinear before it, reads it, and
    # what that node computes.

    def _library_node(
        self, weight: StoredWeight, plan: SitePlan, x: ir.Value, output: ir.Value, gelu: bool
    ) -> _Written:
        site, bias = weight.packed.site, weight.packed.bias
        inputs = [x, weight.planes[0]]
        if bias is not None:
            inputs.append(float_constant(self._writer, bias))
        kind = "NBitLinear" if site.operator == "linear" else "NBitConv1d"
        attributes = node_attributes(site, plan, gelu)
        return weight.planes[0], self._writer.op(kind, inputs, output, attributes, domain=DOMAIN)

    def _static_linear(self, weight: StoredWeight, plan: SitePlan, x: ir.Value, output: ir.Value) -> _Written:
        codes = self._transposed(self._codes(weight))
        axis = {"axis": 1} if _per_channel(weight) else {}
        dequantised = self._writer.op("DequantizeLinear", [codes, self._scale(weight)], attributes=axis)
        factors = [self._through_grid(x, plan.input_range), dequantised]
        return codes, self._add_bias(weight, "MatMul", factors, output)

    def _dynamic_linear(self, weight: StoredWeight, x: ir.Value, output: ir.Value) -> _Written:
        codes = self._transposed(self._codes(weight))
        quantised, scale, zero_point = self._dynamic_grid(x)
        accumulated = self._writer.op("MatMulInteger", [quantised, codes, zero_point])
        factors = [
            self._writer.op("Cast", [accumulated], attributes={"to": ir.DataType.FLOAT}),
            self._writer.op("Mul", [scale, self._scale(weight)]),
        ]
        return codes, self._add_bias(weight, "Mul", factors, output)

    def _typed_linear(self, weight: StoredWeight, x: ir.Value, output: ir.Value) -> _Written:
        axis = {"axis": 1} if _per_channel(weight) else {}
        factor = self._writer.op("DequantizeLinear", [weight.planes[0], self._scale(weight)], attributes=axis)
        return weight.planes[0], self._add_bias(weight, "MatMul", [x, factor], output)

    def _float_linear(self, weight: StoredWeight, x: ir.Value, output: ir.Value) -> _Written:
        transposed = self._transposed(self._float_weight(weight))
        return transposed, self._add_bias(weight, "MatMul", [x, transposed], output)

    def _static_conv(self, weight: StoredWeight, plan: SitePlan, x: ir.Value, output: ir.Value) -> _Written:
        assert plan.input_range is not None and plan.output_range is not None
        scale = self._scale(weight)
        codes = self._codes(weight)
        axis = {"axis": 0} if _per_channel(weight) else {}
        dequantised = self._writer.op("DequantizeLinear", [codes, scale], attributes=axis)
        inputs = [self._through_grid(x, plan.input_range), dequantised]
        if weight.packed.bias is not None:
            inputs.append(self._integer_bias(weight, plan.input_range, scale))
        floating = self._writer.op("Conv", inputs, attributes=_geometry(weight.packed))
        quantised = self._writer.op("QuantizeLinear", [floating, *self._grid(plan.output_range)])
        self._writer.op("DequantizeLinear", [quantised, *self._grid(plan.output_range)], output)
        return codes, quantised

    def _float_conv(self, weight: StoredWeight, x: ir.Value, output: ir.Value) -> _Written:
        floating = self._float_weight(weight)
        inputs = [x, floating]
        if weight.packed.bias is not None:
            inputs.append(float_constant(self._writer, weight.packed.bias))
        return floating, self._writer.op("Conv", inputs, output, attributes=_geometry(weight.packed))

    def _add_bias(
        self, weight: StoredWeight, kind: str, factors: list[ir.Value], output: ir.Value
    ) -> ir.Value:
        """Multiply, then add the bias; a bias that the multiplying node can take in makes a float Gemm of
        both."""
        if weight.packed.bias is None:
            return self._writer.op(kind, factors, output)
        product = self._writer.op(kind, factors)
        self._writer.op("Add", [product, float_constant(self._writer, weight.packed.bias)], output)
        return product

    def _transposed(self, matrix: ir.Value) -> ir.Value:
        """[N, K] as [K, N], the only form in which a weight fuses; folded at load."""
        return self._writer.op("Transpose", [matrix], attributes={"perm": [1, 0]})

    def _integer_bias(self, weight: StoredWeight, input_range: Range, scale: ir.Value) -> ir.Value:
        packed = weight.packed.weight
        assert isinstance(packed, PackedTensor) and weight.packed.bias is not None
        steps = torch.from_numpy(packed.scale.astype(np.float32))
        codes = conv_bias_codes(torch.from_numpy(weight.packed.bias), input_range, steps).int().numpy()
        step = self._writer.op("Mul", [scale, self._writer.constant(np.float32(input_range.scale))])
        axis = {"axis": 0} if _per_channel(weight) else {}
        return self._writer.op("DequantizeLinear", [self._writer.initializer(codes), step], attributes=axis)

    def _codes(self, weight: StoredWeight) -> ir.Value:
        assert isinstance(weight.packed.weight, PackedTensor)
        return int8_weight(self._writer, weight.packed.weight, weight.planes)

    def _scale(self, weight: StoredWeight) -> ir.Value:
        assert weight.scale is not None
        return self._writer.op("Cast", [weight.scale], attributes={"to": ir.DataType.FLOAT})

    def _float_weight(self, weight: StoredWeight) -> ir.Value:
        packed = weight.packed.weight
        if not isinstance(packed, PackedTensor):
            if packed.dtype == np.float32:
                return weight.planes[0]
            return self._writer.op("Cast", [weight.planes[0]], attributes={"to": ir.DataType.FLOAT})
        codes = self._writer.op("Cast", [self._codes(weight)], attributes={"to": ir.DataType.FLOAT})
        scale = self._scale(weight)
        if _per_channel(weight):
            column = self._writer.constant(np.array([-1, *[1] * (len(packed.shape) - 1)], np.int64))
            scale = self._writer.op("Reshape", [scale, column])
        return self._writer.op("Mul", [codes, scale])

    def _grid(self, interval: Range) -> tuple[ir.Value, ir.Value]:
        scale = self._writer.constant(np.float32(interval.scale))
        return scale, self._writer.constant(np.uint8(interval.zero_point))

    def _through_grid(self, x: ir.Value, interval: Range | None) -> ir.Value:
        assert interval is not None and x.name
        key = (x.name, interval)
        if key not in self._quantised:
            self._quantised[key] = (self._writer.op("QuantizeLinear", [x, *self._grid(interval)]),)
        return self._writer.op("DequantizeLinear", [*self._quantised[key], *self._grid(interval)])

    def _dynamic_grid(self, x: ir.Value) -> tuple[ir.Value, ...]:
        assert x.name
        key = (x.name, None)
        if key not in self._quantised:
            names = [self._writer.fresh() for _ in range(3)]
            outputs = self._writer.tape.op_multi_out(
                "DynamicQuantizeLinear", [x], outputs=[ir.Value(name=n) for n in names]
            )
            self._quantised[key] = tuple(outputs)
        return self._quantised[key]


def _per_channel(weight: StoredWeight) -> bool:
    return isinstance(weight.packed.weight, PackedTensor) and weight.packed.weight.granularity == "channel"


def _geometry(packed: PackedSite) -> dict[str, int | Sequence[int]]:
    geometry = packed.site.conv
    assert geometry is not None
    return {
        "strides": [geometry.stride],
        "pads": [geometry.padding] * 2,
        "dilations": [geometry.dilation],
        "group": geometry.groups,
    }
