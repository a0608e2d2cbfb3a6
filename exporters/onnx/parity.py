"""Does the written file compute what the quantised torch model computes? Site by site, on real audio.

Each site is given the very input that it had inside ONNX Runtime, so an error is charged to the site that
made it and does not travel down the network.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
import torch
from torch.nn import functional

from bitvox.compiler.frontend.model import FloatArray, Site, SpeechModel
from bitvox.compiler.frontend.session import Array
from bitvox.compiler.lowering.packed import PackedModel
from bitvox.compiler.passes.quantizer import QuantisedSite
from bitvox.exporters.onnx.build import WrittenGraph, WrittenModel
from bitvox.exporters.onnx.forms import SiteValues
from bitvox.exporters.onnx.session import SUFFIX, create_session, open_session, quiet_options
from bitvox.exporters.proof import Parity

# Root mean square of the difference over that of the output. Sums in another order differ by 1e-6; a value
# next to a rounding boundary that falls to the other side moves one code, which leaves 1e-4 over a clip. A
# wrong kernel, a saturating accumulator or a lost bias leaves far more than 1e-3.
TOLERANCE = 1e-3

# Share of a convolution's output codes that may fall to the neighbour: sums in another order put 1e-5 there.
_TIES = 1e-3

# The two graphs fuse alike but for what is read; codes that fall to the neighbour travel down the network.
_SHIPPED_TOLERANCE = 5e-2

# MatMulNBits rounds activations to 8 bits in blocks of its own, which the torch model does not restate.
_OWN_ROUNDING = {"MatMulNBits": 2e-2}


def measure_parity(
    model: SpeechModel,
    packed: PackedModel,
    written: WrittenModel,
    kernels: Mapping[str, str],
    samples: FloatArray,
) -> Parity:
    """Compare every site of the files with its quantised torch form on one clip of samples [T]."""
    inputs = model.processor.inputs(model.session, samples)
    watched = _WatchedSession(model, packed, written)
    logits = model.processor.retrace(watched, inputs)
    shipped = model.processor.retrace(open_session(written.data.parent, num_threads=1), inputs)
    difference = {site.name: watched.difference.get(site.name, float("inf")) for site in model.sites}
    allowed = {name: _OWN_ROUNDING.get(kernels[name], TOLERANCE) for name in difference}
    return Parity(difference, allowed, _relative(shipped, logits, step=0.0), _SHIPPED_TOLERANCE)


class _WatchedSession:
    """The written graphs (a `Session`); each call compares the sites that it runs.

    Attributes:
        difference: The largest relative difference so far, by site.
    """

    def __init__(self, model: SpeechModel, packed: PackedModel, written: WrittenModel) -> None:
        self.difference: dict[str, float] = {}
        self._model, self._plan = model, packed.plan
        self._rounded = {stored.site.name: stored.rounded() for stored in packed.sites}
        self._written = {graph.name: graph for graph in written.graphs}
        self._sessions = {name: _open_exposed(graph) for name, graph in self._written.items()}

    @property
    def graphs(self) -> tuple[str, ...]:
        """Names of the graphs."""
        return tuple(self._written)

    def call(self, graph: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs of one graph by name."""
        (session, own), sites = self._sessions[graph], self._written[graph].sites
        names = [value.name for value in session.get_outputs()]
        values = {**inputs, **dict(zip(names, session.run(names, dict(inputs)), strict=True))}
        for site in self._model.sites:
            if site.graph == graph:
                found = self._compare(site, sites[site.name], values)
                self.difference[site.name] = max(found, self.difference.get(site.name, 0.0))
        return {name: values[name] for name in own}

    def _compare(self, site: Site, at: SiteValues, values: Mapping[str, Array]) -> float:
        entry = self._plan.site(site.name)
        module, stored = self._model.site_module(site), self._rounded[site.name]
        reference = QuantisedSite(module, site, entry, self._plan.kernels, stored)
        with torch.inference_mode():
            output = reference(torch.from_numpy(values[at.input]))
            expected = (functional.gelu(output) if at.activation == "gelu" else output).numpy()
        rounded = (
            entry.activations == "static" and site.operator == "conv1d" and self._plan.kernels == "stock"
        )
        coarse = entry.output_range if rounded else None
        found = _relative(values[at.output], expected, coarse.scale if coarse is not None else 0.0)
        if at.lookup is None:
            return found
        tokens, rows = (values[name] for name in at.lookup)
        return max(found, _relative(rows, reference.lookup(torch.from_numpy(tokens)).numpy(), 0.0))


def _open_exposed(written: WrittenGraph) -> tuple[onnxruntime.InferenceSession, list[str]]:
    """A session of a graph in which the values of every site are outputs too, and the graph's own outputs."""
    proto = onnx.load(written.file, load_external_data=False)
    own = [value.name for value in proto.graph.output]
    present = {value.name for value in (*proto.graph.output, *proto.graph.input)}
    read = (name for at in written.sites.values() for name in (at.input, at.output, *(at.lookup or ())[1:]))
    for name in dict.fromkeys(read):
        if name not in present:
            proto.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    path = written.file.with_name(f"parity{SUFFIX}")  # beside the data that it reads
    path.write_bytes(proto.SerializeToString())
    try:
        return create_session(path, quiet_options(path, num_threads=1)), own
    finally:
        path.unlink()


def _relative(actual: FloatArray, expected: FloatArray, step: float) -> float:
    """Root mean square of the difference over that of `expected`.

    A convolution rounds its output to codes `step` apart: a few values that fall to the other side of a
    boundary are a whole step off, and no fault.
    """
    if actual.shape != expected.shape:
        return float("inf")
    error = actual.astype(np.float64) - expected
    ties = (np.abs(error) > 0.5 * step) & (np.abs(error) < 1.5 * step)
    if ties.mean() <= _TIES:
        error = np.where(ties, 0.0, error)
    size = np.sqrt(np.mean(np.square(expected.astype(np.float64))))
    return float(np.sqrt(np.mean(np.square(error))) / max(size, 1e-12))
