"""What runs the graphs of a model, torch or a runtime, behind one protocol. NumPy alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy.typing as npt

Array = npt.NDArray[Any]

MODEL = "model"
"""The graph of a model that has one; it reads `SAMPLES` and writes `LOGITS`."""

SAMPLES, LOGITS = "samples", "logits"


class Session(Protocol):
    """The graphs of one model, loaded."""

    @property
    def graphs(self) -> tuple[str, ...]:
        """Names of the graphs."""
        ...

    def call(self, graph: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs of one graph by name; KeyError for a graph that the model does not have."""
        ...


def run_model(session: Session, features: Array) -> Array:
    """Logits [frames, outputs] of the features [T, ...] of one clip, by a model of one graph."""
    logits: Array = session.call(MODEL, {SAMPLES: features[None]})[LOGITS][0]
    return logits
