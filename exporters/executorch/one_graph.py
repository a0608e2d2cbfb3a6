"""What is lowered of a model of one graph: a method for each of several lengths of audio."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from bitvox.compiler.frontend.graphs import Length
from bitvox.compiler.frontend.model import SpeechModel
from bitvox.compiler.frontend.session import MODEL
from bitvox.exporters.executorch.framing import framing, method_lengths, rows
from bitvox.exporters.executorch.graph import Exposed, SiteForm, write_forms
from bitvox.exporters.executorch.lengths import method_name
from bitvox.exporters.executorch.lowering import Lowered, Method
from bitvox.exporters.executorch.program import METHOD, Program, joined
from bitvox.exporters.executorch.session import MINIMUM, PER_FRAME, RATE

# XNNPACK sets memory aside for the longest input that a graph was exported for, when it is loaded, and takes
# more when it meets a longer one.
_EXPORTED_SECONDS = 1


@dataclass(frozen=True)
class OneGraph:
    """What lowering needs to know beside the traced graph (a `Recipe`).

    Attributes:
        lengths: Rows of input up to which there is a method.
        least, longest: Rows that the graph is exported for.
        width: Shape of a row.
        numbers: Methods of the program that return a number.
    """

    lengths: Sequence[int]
    least: int
    longest: int
    width: Sequence[int]
    numbers: Mapping[str, int]

    @classmethod
    def of(cls, model: SpeechModel, traced: torch.export.ExportedProgram) -> OneGraph:
        """That of a model; raises as `framing` does."""
        found, port = framing(model, traced), model.graphs[0].inputs[0]
        least = next(size.least for size in port.shape if isinstance(size, Length))
        return cls(
            method_lengths(model),
            least,
            rows(model, _EXPORTED_SECONDS * model.processor.sampling_rate),
            port.example().shape[2:],
            {RATE: found.rate, MINIMUM: found.minimum, PER_FRAME: found.per_frame},
        )

    def methods(
        self, traced: Mapping[str, torch.export.ExportedProgram], forms: Sequence[SiteForm], expose: bool
    ) -> tuple[dict[str, Method], dict[str, dict[int, Exposed]]]:
        """What to lower, and what `expose` adds to the outputs of each method."""
        module, exposed = write_forms(traced[MODEL], forms, expose)
        example = torch.zeros(1, (self.least + self.longest) // 2, *self.width)
        length = torch.export.Dim("rows", min=self.least, max=self.longest)
        return {METHOD: Method(module, (example,), ({1: length},))}, {METHOD: exposed}

    def emit(self, lowered: Lowered) -> Program:
        """The program of a bundle."""
        return joined({method_name(length): lowered.emit(length) for length in self.lengths})

    @property
    def compared_length(self) -> int:
        """Rows of the program that sites are compared in."""
        return self.lengths[0]

    def document(self) -> dict[str, object]:
        """As JSON has it."""
        return dataclasses.asdict(self)
