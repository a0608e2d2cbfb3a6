"""Does the written file compute what the quantised torch model computes? Site by site, on real audio.

Each site is given the very input that it had inside ONNX Runtime, so an error is charged to the site that
made it and does not travel down the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from bitvox.compiler.frontend.model import FloatArray, SpeechModel
from bitvox.compiler.passes.plan import QuantPlan
from bitvox.compiler.passes.quantizer import QuantisedSite
from bitvox.errors import RequestError
from bitvox.exporters.onnx.forms import SiteValues
from bitvox.exporters.onnx.skeleton import INPUT, OUTPUT

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


@dataclass(frozen=True)
class Parity:
    """What running a written file showed.

    Attributes:
        difference: Relative difference of every site's output, in execution order.
        kernels: Kernel that made it.
        shipped: Relative difference of the file's own logits from those of the copy whose sites were read.
    """

    difference: Mapping[str, float]
    kernels: Mapping[str, str]
    shipped: float

    @property
    def worst(self) -> tuple[str, float]:
        """The site that differs most, and by how much."""
        name = max(self.difference, key=lambda site: self.difference[site])
        return name, self.difference[name]

    def check(self) -> None:
        """Raise RequestError that names the first site outside the tolerance."""
        for name, difference in self.difference.items():
            allowed = _OWN_ROUNDING.get(self.kernels[name], TOLERANCE)
            if not difference <= allowed:
                raise RequestError(
                    f"site '{name}': its output in ONNX Runtime differs from the quantised model by "
                    f"{difference:.1e} of its size (allowed {allowed:.0e})"
                )
        if not self.shipped <= _SHIPPED_TOLERANCE:
            raise RequestError(
                f"logits: the file's own differ by {self.shipped:.1e} from those of the compared copy "
                f"(allowed {_SHIPPED_TOLERANCE:.0e}); ONNX Runtime optimises the two differently"
            )


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
        reference = QuantisedSite(model.site_module(site), site, plan.site(site.name))
        with torch.inference_mode():
            expected = reference(torch.from_numpy(values[at.input])).numpy()
        entry = plan.site(site.name)
        coarse = entry.output_range if entry.activations == "static" and site.operator == "conv1d" else None
        step = coarse.scale if coarse is not None else 0.0
        difference[site.name] = _relative(values[at.output], expected, step)
    (shipped,) = _run(written, [OUTPUT], features)
    return Parity(difference, kernels, _relative(shipped, values[OUTPUT], step=0.0))


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
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
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
