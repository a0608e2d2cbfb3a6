"""Does the written file compute what the quantised torch model computes? Site by site, on real audio.

Each site is given the very input that it had inside ONNX Runtime, so an error is charged to the site that
made it and does not travel down the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from torch.nn import functional

from bitvox.compiler.frontend.model import FloatArray, SpeechModel
from bitvox.compiler.passes.plan import QuantPlan
from bitvox.compiler.passes.quantizer import QuantisedSite
from bitvox.exporters.onnx.forms import SiteValues
from bitvox.exporters.onnx.session import create_session, quiet_options
from bitvox.exporters.onnx.skeleton import INPUT, OUTPUT
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
    plan: QuantPlan,
    written: Path,
    sites: Mapping[str, SiteValues],
    kernels: Mapping[str, str],
    samples: FloatArray,
) -> Parity:
    """Compare every site of the file with its quantised torch form on one clip of samples [T]."""
    features = model.processor.features(samples)[None]
    values = _run_with_site_values(written, sites, features)
    difference = {}
    for site in model.sites:
        at = sites[site.name]
        entry = plan.site(site.name)
        reference = QuantisedSite(model.site_module(site), site, entry, plan.kernels)
        with torch.inference_mode():
            output = reference(torch.from_numpy(values[at.input]))
            expected = (functional.gelu(output) if at.activation == "gelu" else output).numpy()
        rounded = entry.activations == "static" and site.operator == "conv1d" and plan.kernels == "stock"
        coarse = entry.output_range if rounded else None
        step = coarse.scale if coarse is not None else 0.0
        difference[site.name] = _relative(values[at.output], expected, step)
    (shipped,) = _run(written, [OUTPUT], features)
    allowed = {name: _OWN_ROUNDING.get(kernels[name], TOLERANCE) for name in difference}
    return Parity(difference, allowed, _relative(shipped, values[OUTPUT], step=0.0), _SHIPPED_TOLERANCE)


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


def _run_with_site_values(
    written: Path, sites: Mapping[str, SiteValues], features: FloatArray
) -> dict[str, FloatArray]:
    with _exposed(written, sites) as (path, names):
        return dict(zip(names, _run(path, names, features), strict=True))


def _run(path: Path, names: list[str], features: FloatArray) -> list[FloatArray]:
    session = create_session(path, quiet_options(path, num_threads=1))
    outputs: list[FloatArray] = session.run(names, {INPUT: features})
    return outputs


@contextmanager
def _exposed(written: Path, sites: Mapping[str, SiteValues]) -> Iterator[tuple[Path, list[str]]]:
    """A copy of the graph beside its data file in which the input and output of every site are graph
    outputs."""
    proto = onnx.load(written, load_external_data=False)
    present = {value.name for value in (*proto.graph.output, *proto.graph.input)}
    names = list(dict.fromkeys([OUTPUT, *(name for at in sites.values() for name in (at.input, at.output))]))
    for name in names:
        if name not in present:
            proto.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    path = written.with_name("parity.onnx")
    path.write_bytes(proto.SerializeToString())
    try:
        yield path, names
    finally:
        path.unlink()
