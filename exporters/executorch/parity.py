"""Does the written program compute what the quantised torch model computes? Site by site, on real audio.

A second program, lowered from the same graph and filled with the same constants, also hands out the input
and the output of every site. Each site's output is compared with that of its quantised torch form on the very
input that it had inside ExecuTorch, so an error is charged to the site that made it and does not travel down
the network. The logits of the program that ships are then compared with those of the second one.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from bitvox.compiler.frontend.model import FloatArray, SpeechModel
from bitvox.compiler.lowering.packed import PackedModel
from bitvox.compiler.passes.quantizer import QuantisedSite
from bitvox.exporters.executorch.build import WrittenModel
from bitvox.exporters.executorch.framing import rows
from bitvox.exporters.executorch.lengths import LENGTH_SECONDS
from bitvox.exporters.executorch.program import METHOD, Program
from bitvox.exporters.executorch.session import open_session, run_program
from bitvox.exporters.executorch.skeleton import compared_program
from bitvox.exporters.proof import Parity

# Root mean square of the difference over that of the output. Sums in another order differ by 1e-6; a value
# next to a rounding boundary that falls to the other side moves one code, which leaves 1e-4 over a clip. A
# wrong kernel, a saturating accumulator or a lost bias leaves far more than 1e-3.
TOLERANCE = 1e-3

# XNNPACK may fuse differently around a value that is handed out, and codes that fall to the neighbour travel.
_SHIPPED_TOLERANCE = 5e-2


def measure_parity(
    model: SpeechModel, packed: PackedModel, written: WrittenModel, samples: FloatArray
) -> Parity:
    """Compare every site of the program on the first seconds of one clip of samples [T]."""
    features = model.processor.features(samples)
    features = features[: rows(model, LENGTH_SECONDS[0] * model.processor.sampling_rate)]
    compared = compared_program(written.skeleton, written.forms)
    values = _run(compared.program.filled(written.constants), features)
    plan, difference = packed.plan, {}
    for stored, form, at in zip(packed.sites, written.forms, compared.exposed, strict=True):
        site = stored.site
        reference = form.stock or QuantisedSite(
            model.site_module(site), site, plan.site(site.name), plan.kernels, stored.rounded()
        )
        with torch.inference_mode():
            output = reference(torch.from_numpy(values[at.input]))
            expected = (functional.gelu(output) if at.activation == "gelu" else output).numpy()
        difference[site.name] = _relative(values[at.output], expected)
    shipped = open_session(written.model.parent, num_threads=1).run(features)
    allowed = dict.fromkeys(difference, TOLERANCE)
    return Parity(difference, allowed, _relative(shipped, values[0][0]), _SHIPPED_TOLERANCE)


def _run(program: Program, features: FloatArray) -> list[FloatArray]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "compared.pte"
        path.write_bytes(program.to_bytes())
        return run_program(path, METHOD, features[None])


def _relative(actual: FloatArray, expected: FloatArray) -> float:
    """Root mean square of the difference over that of `expected`."""
    if actual.shape != expected.shape:
        return float("inf")
    error = actual.astype(np.float64) - expected
    size = np.sqrt(np.mean(np.square(expected.astype(np.float64))))
    return float(np.sqrt(np.mean(np.square(error))) / max(size, 1e-12))
