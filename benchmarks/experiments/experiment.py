"""What an experiment is: a name, what it measures, and how its results become a table and a figure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bitvox.benchmarks.experiments.results import Document
from bitvox.progress import Progress

Split = Literal["dev", "test"]
MODEL = "reference-ctc"


@dataclass(frozen=True)
class Options:
    """What one run of an experiment is asked for.

    Attributes:
        out: Results file. Cells that it holds and that nothing has changed for are not measured again.
        split: Speakers that are judged on.
        model: Checkpoint, as `bitvox compile` takes it.
        limit: Most recordings (or speakers, as the experiment says) that are judged on, for a trial.
        arguments: The options that differ from the experiment's own, as they are typed.
    """

    out: Path
    split: Split = "test"
    model: str = MODEL
    limit: int | None = None
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """One entry of the registry.

    Attributes:
        name: As it is typed; its files are called so too, with `_` for `-`.
        about: What it answers, in one line.
        measure: Fills the results file of a run and returns what is in it.
        section: Markdown made of a results file.
        figure: Draws a results file into an SVG file; None where a table says it all.
        splits: Speakers that it can judge on, the usual first; none where no recordings are judged on.
        takes: Fields of `Options` that mean something to it.
    """

    name: str
    about: str
    measure: Callable[[Options, Progress], Document[Any, Any]]
    section: Callable[[Path], str]
    figure: Callable[[Path, Path], None] | None = None
    splits: tuple[Split, ...] = ("test",)
    takes: frozenset[str] = frozenset({"model", "limit"})

    def stem(self, split: Split) -> str:
        """Name of its files for a split, without an ending."""
        name = self.name.replace("-", "_")
        return f"{name}_{split}" if len(self.splits) > 1 else name

    def stems(self) -> list[str]:
        """Of every split, in order."""
        return [self.stem(split) for split in self.splits] or [self.stem("test")]
