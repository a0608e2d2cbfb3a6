"""How the input of a model falls into frames of logits.

Counted in rows of the input: samples, or frames of the features that the model reads.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import torch

from bitvox.compiler.frontend.graphs import Length
from bitvox.compiler.frontend.model import SpeechModel
from bitvox.errors import InputError
from bitvox.exporters.executorch.lengths import LENGTH_SECONDS

_PROBED_FRAMES = 4


@dataclass(frozen=True)
class Framing:
    """What cutting a clip into windows needs to know of a model.

    Attributes:
        rate: Rows of a second.
        minimum: Rows of the first frame.
        per_frame: Rows from one frame to the next.
    """

    rate: int
    minimum: int
    per_frame: int


def framing(model: SpeechModel, traced: torch.export.ExportedProgram) -> Framing:
    """What the trace of a model of one graph says; of one row of logits for the whole clip, its processor.

    Raises InputError where frames are not evenly spaced.
    """
    processor = model.processor
    seconds = processor.sampling_rate
    rate = rows(model, 2 * seconds) - rows(model, seconds)
    frames = _frames(traced)
    if frames is None:
        reads_samples = rate == processor.sampling_rate
        per_frame = processor.samples_per_frame if reads_samples else 1
        return Framing(rate, rows(model, processor.minimum_samples), per_frame)
    length = next(size for size in model.graphs[0].inputs[0].shape if isinstance(size, Length))
    first = frames(length.least) + 1
    starts = [
        bisect_left(range(length.most), count, lo=length.least, key=frames)
        for count in range(first, first + _PROBED_FRAMES)
    ]
    steps = {after - before for before, after in itertools.pairwise(starts)}
    if len(steps) > 1 or 0 in steps:
        raise InputError(
            f"model '{model.source}': its frames of logits are not evenly spaced, so that executorch cannot "
            "run a long clip in windows; compile it with --target onnx"
        )
    (per_frame,) = steps
    return Framing(rate, starts[0] - (first - 1) * per_frame, per_frame)


def rows(model: SpeechModel, samples: int) -> int:
    """Rows of the input of that many samples."""
    return model.processor.input_shape(samples)[0]


def method_lengths(model: SpeechModel) -> list[int]:
    """Rows of input up to which a program has a method each."""
    rate = model.processor.sampling_rate
    return sorted({rows(model, seconds * rate) for seconds in LENGTH_SECONDS})


def _frames(traced: torch.export.ExportedProgram) -> Callable[[int], int] | None:
    """Rows -> frames of logits; None where their number is the same for all."""
    count = traced.graph.output_node().args[0][0].meta["val"].shape[1]
    if not isinstance(count, torch.SymInt):
        return None
    expression = count.node.expr
    (length,) = expression.free_symbols
    return lambda read: int(expression.subs(length, read))
