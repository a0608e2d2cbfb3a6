"""Single layers that tests of the targets share: random parameters, and what the specification computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bitvox.compiler.frontend.model import ConvGeometry, Site
from bitvox.compiler.lowering.packed import PackedSite, PackedTensor
from bitvox.compiler.lowering.planes import pack_planes
from bitvox.compiler.passes.plan import Range, SitePlan
from bitvox.exporters.onnx.resident import resident_weight
from bitvox.runtime_kernels import reference

KINDS = ("linear", "conv", "grouped conv")

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Layer:
    """Codes and parameters of one linear ([N, K]) or Conv1d ([N, C / groups, k]).

    Activations are rounded on the grid of `x_scale` and `x_zero` (-128..127), or on one of their own where
    `x_scale` is 0.
    """

    bits: int
    codes: npt.NDArray[np.uint8]
    scale: npt.NDArray[np.float16]
    bias: FloatArray
    groups: int = 1
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    x_scale: float = 0.0
    x_zero: int = 0
    gelu: bool = False

    @property
    def weight(self) -> PackedTensor:
        """The weight as lowering makes it."""
        planes = pack_planes(self.codes, self.bits)
        return PackedTensor(self.bits, self.codes.shape, "channel", planes, self.scale)

    @property
    def packed(self) -> npt.NDArray[np.uint8]:
        """The weight as the operator libraries read it."""
        return resident_weight(self.weight)

    @property
    def site(self) -> PackedSite:
        """The layer as a site of a model that exporters take."""
        conv = ConvGeometry(self.stride, self.padding, self.dilation, self.groups)
        linear = self.codes.ndim == 2
        site = Site(
            name="layer",
            operator="linear" if linear else "conv1d",
            shape=self.codes.shape,
            role="linear" if linear else "conv",
            share_group="layer",
            has_bias=True,
            conv=None if linear else conv,
        )
        return PackedSite(site, self.weight, self.bias)

    def plan(self, output_range: Range) -> SitePlan:
        """Its entry of a plan; a kernel that rounds its output does so on the grid of `output_range`."""
        low, high = ((code - self.x_zero) * self.x_scale for code in (-128, 127))
        return SitePlan(
            "layer",
            self.bits,
            activations="static" if self.x_scale else "dynamic",
            input_range=Range(low, high) if self.x_scale else None,
            output_range=output_range,
        )

    def expected(self, x: FloatArray) -> DoubleArray:
        """The outputs by the specification of the packed kernels."""
        if self.codes.ndim == 3:
            return reference.conv1d(
                x,
                self.codes,
                self.bits,
                self.scale.astype(np.float32),
                bias=self.bias,
                stride=self.stride,
                padding=self.padding,
                dilation=self.dilation,
                groups=self.groups,
                gelu=self.gelu,
                x_scale=self.x_scale or None,
                x_zero_point=self.x_zero,
            )
        rows = x.reshape(-1, x.shape[-1])
        if self.x_scale:
            q = reference.quantise_calibrated(rows, self.x_scale, self.x_zero)
            return self.multiplied(x, q, np.full(len(rows), self.x_scale, np.float32), self.x_zero)
        return self.multiplied(x, *reference.quantise_rows(rows))

    def multiplied(
        self, x: FloatArray, q: npt.NDArray[np.integer[Any]], x_scales: FloatArray, x_zero: int = 0
    ) -> DoubleArray:
        """Outputs of a linear for x [..., K] that was rounded to codes q [M, K]; x_scales are [M]."""
        scales, zeros = reference.parameters(self.bits, len(self.codes), 1, self.scale, None)
        integers = reference.sums(self.codes, zeros, q, x_zero)
        y = reference.scaled(integers, scales, x_scales, self.bias, self.gelu)
        return y.reshape(*x.shape[:-1], len(self.codes))


def random_layer(bits: int, kind: str, static: bool, gelu: bool = False) -> Layer:
    """A layer with sizes that fill no block; `kind` is one of KINDS."""
    generator = np.random.default_rng([bits, static, len(kind)])
    shape = {"linear": (37, 75), "conv": (24, 10, 3), "grouped conv": (36, 6, 8)}[kind]
    geometry: dict[str, int] = {
        "linear": {},
        "conv": {"stride": 2},
        "grouped conv": {"groups": 3, "padding": 4},
    }[kind]
    return Layer(
        bits=bits,
        codes=generator.integers(0, 1 << bits, shape).astype(np.uint8),
        scale=generator.uniform(0.01, 0.1, shape[0]).astype(np.float16),
        bias=generator.standard_normal(shape[0]).astype(np.float32),
        x_scale=2.0**-6 if static else 0.0,
        x_zero=-17 if static else 0,
        gelu=gelu,
        **geometry,
    )


def random_input(layer: Layer) -> FloatArray:
    """Rows for a linear, in two leading dimensions; more frames than one run for a convolution."""
    channels = layer.codes.shape[1] * layer.groups
    shape = (2, 7, channels) if layer.codes.ndim == 2 else (2, channels, 300)
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)
