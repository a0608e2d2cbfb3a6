"""Does the written program compute what the quantised torch model computes? Site by site, on real audio.

A second program, lowered from the same graphs and filled with the same constants, also hands out the input
and the output of every site. Each site's output is compared with that of its quantised torch form on the very
input that it had inside ExecuTorch, so an error is charged to the site that made it and does not travel down
the network. The logits of the program that ships are then compared with those of the second one, and those
of a decoder's beams with those of its step.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from bitvox.compiler.frontend.graph_decoder import STEP
from bitvox.compiler.frontend.model import FloatArray, SpeechModel
from bitvox.compiler.frontend.session import MODEL, Array
from bitvox.compiler.lowering.packed import PackedModel
from bitvox.compiler.passes.quantizer import QuantisedSite
from bitvox.exporters.executorch.build import WrittenModel
from bitvox.exporters.executorch.decoder_session import ROWS, DecoderSession
from bitvox.exporters.executorch.framing import rows
from bitvox.exporters.executorch.graph import Exposed
from bitvox.exporters.executorch.lengths import LENGTH_SECONDS
from bitvox.exporters.executorch.methods import Methods
from bitvox.exporters.executorch.program import METHOD
from bitvox.exporters.executorch.session import ExecutorchSession, open_session
from bitvox.exporters.executorch.skeleton import Compared, compared_program
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
    compared = compared_program(written.skeleton, written.forms)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "compared.pte"
        path.write_bytes(compared.program.filled(written.constants).to_bytes())
        watched = _Watched.open(path, model, packed, written, compared)
        session = open_session(written.model.parent, num_threads=1)
        if isinstance(session, ExecutorchSession):
            shipped = _clip_difference(model, watched, session, samples)
        else:
            assert isinstance(session, DecoderSession)
            shipped = _decoding_difference(model, watched, session, samples)
    difference = {site.name: watched.difference.get(site.name, float("inf")) for site in model.sites}
    return Parity(difference, dict.fromkeys(difference, TOLERANCE), shipped, _SHIPPED_TOLERANCE)


def _clip_difference(
    model: SpeechModel, watched: _Watched, session: ExecutorchSession, samples: FloatArray
) -> float:
    features = model.processor.features(samples)
    features = features[: rows(model, LENGTH_SECONDS[0] * model.processor.sampling_rate)]
    (logits,) = watched.run(METHOD, torch.from_numpy(features[None]))
    return _relative(session.run(features), logits[0].numpy())


def _decoding_difference(
    model: SpeechModel, watched: _Watched, session: DecoderSession, samples: FloatArray
) -> float:
    inputs = model.processor.inputs(model.session, samples)
    logits = model.processor.retrace(DecoderSession(watched, watched.number(ROWS)), inputs)
    shipped = model.processor.retrace(session, inputs)
    return max(_relative(shipped, logits), _beams_difference(session, inputs))


def _beams_difference(session: DecoderSession, inputs: Sequence[Array]) -> float:
    """How far rows of a search are from the one row of greedy decoding, all after the same tokens."""
    features, prompt, tokens = inputs
    _, state = session.step(session.encode(features[0]), prompt)
    twice = session.reorder(state, np.zeros(2, np.int64))
    alone, _ = session.step(state, tokens[:, :1])
    together, _ = session.step(twice, np.repeat(tokens[:, :1], 2, axis=0))
    return max(_relative(row, alone[0]) for row in together)


@dataclass(frozen=True)
class _Watched(Methods):
    """The program that hands out values; each call compares the sites that it runs, and returns the rest.

    Attributes:
        difference: The largest relative difference so far, by site.
    """

    exposed: Compared
    references: dict[int, torch.nn.Module]
    names_of: dict[int, str]
    outputs: dict[str, int]
    difference: dict[str, float] = field(default_factory=dict)

    @classmethod
    def open(
        cls, path: Path, model: SpeechModel, packed: PackedModel, written: WrittenModel, compared: Compared
    ) -> _Watched:
        """The program in a file, and the quantised torch form of each site."""
        references: dict[int, torch.nn.Module] = {}
        for index, (stored, form) in enumerate(zip(packed.sites, written.forms, strict=True)):
            site, plan = stored.site, packed.plan
            references[index] = form.stock or QuantisedSite(
                model.site_module(site), site, plan.site(site.name), plan.kernels, stored.rounded()
            )
        outputs = {
            METHOD if graph.name == MODEL else graph.name: 1 if graph.name == STEP else len(graph.outputs)
            for graph in model.graphs
        }
        names = {index: site.name for index, site in enumerate(model.sites)}
        program = Methods.load(path, 1)
        return cls(path, program.module, program.names, compared, references, names, outputs)

    def run(self, name: str, *inputs: torch.Tensor) -> list[torch.Tensor]:
        """The method's own outputs."""
        values = super().run(name, *inputs)
        for index, at in self.exposed.exposed.get(name, {}).items():
            site = self.names_of[index]
            found = _site_difference(self.references[index], at, values)
            self.difference[site] = max(found, self.difference.get(site, 0.0))
        return values[: self.outputs.get(name, len(values))]


@torch.inference_mode()
def _site_difference(reference: Any, at: Exposed, values: Sequence[torch.Tensor]) -> float:
    output = reference(values[at.input])
    expected = (functional.gelu(output) if at.activation == "gelu" else output).numpy()
    found = _relative(values[at.output].numpy(), expected)
    if at.lookup is None:
        return found
    tokens, looked_up = at.lookup
    return max(found, _relative(values[looked_up].numpy(), reference.lookup(values[tokens]).numpy()))


def _relative(actual: FloatArray, expected: FloatArray) -> float:
    """Root mean square of the difference over that of `expected`."""
    if actual.shape != expected.shape:
        return float("inf")
    error = actual.astype(np.float64) - expected
    size = np.sqrt(np.mean(np.square(expected.astype(np.float64))))
    return float(np.sqrt(np.mean(np.square(error))) / max(size, 1e-12))
