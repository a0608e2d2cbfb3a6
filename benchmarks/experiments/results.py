"""The JSON file of an experiment: cell by cell, written whole, so that a run can stop anywhere and go on."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from bitvox.benchmarks.metrics import ErrorRate, Interval
from bitvox.code_version import code_version
from bitvox.errors import InputError

FORMAT = 1
REPOSITORY = Path(__file__).resolve().parents[2]


class Schema(BaseModel):
    """Part of a results file (a file boundary)."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Provenance(Schema):
    """Where numbers come from.

    Attributes:
        command: What to type, from the repository's root, to make the file again.
        commit: Of the repository; it ends in `+changes` when tracked files differed from it.
        versions: Of what computed.
        machine: CPU, cores, system.
        model: Name of the checkpoint; `fingerprint`: its SHA-256.
        data: What was read: data set -> clips, speakers, how they were chosen.
    """

    command: str
    commit: str
    versions: dict[str, str]
    machine: dict[str, str]
    model: str
    fingerprint: str
    data: dict[str, str]


class Cell(Schema):
    """One finished measurement.

    Attributes:
        key: Digest of everything that it depends on, see `cell_key`.
        commit: That it was measured at, when the file was made in several runs.
    """

    key: str
    commit: str


class Rate(Schema):
    """A rate in percent with the ends of its 95 % interval; None where it is not defined."""

    percent: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, interval: Interval) -> Rate:
        """The rate, at a precision that stays the same from machine to machine."""
        ends = (interval.percent, interval.low, interval.high)
        percent, low, high = (None if end is None else round(end, 4) for end in ends)
        return cls(percent=percent, low=low, high=high)


class Errors(Schema):
    """An error rate, the edits it is made of, and the words or characters they are counted against."""

    rate: Rate
    substitutions: int
    deletions: int
    insertions: int
    length: int

    @classmethod
    def of(cls, found: ErrorRate) -> Errors:
        """The same numbers for the file."""
        return cls(
            rate=Rate.of(found.rate),
            substitutions=found.substitutions,
            deletions=found.deletions,
            insertions=found.insertions,
            length=found.length,
        )


C = TypeVar("C", bound=Cell)
S = TypeVar("S", bound=Schema)


class Document(Schema, Generic[C, S]):
    """A results file: rows in the order of the experiment, and what was computed from all of them."""

    format: int = FORMAT
    experiment: str
    provenance: Provenance
    rows: tuple[C, ...]
    summary: tuple[S, ...] = ()


class Notebook(Generic[C, S]):
    """The rows of one results file while an experiment fills it.

    Rows of another checkpoint are dropped at once, rows of other options by `keep`.
    """

    def __init__(
        self, path: Path, form: type[Document[C, S]], experiment: str, provenance: Provenance
    ) -> None:
        self.path = path
        self._form = form
        self._experiment = experiment
        self.provenance = provenance
        self._rows: dict[str, C] = {row.key: row for row in self._read()}

    def keep(self, keys: Iterable[str]) -> None:
        """Forget every row but those."""
        wanted = set(keys)
        self._rows = {key: row for key, row in self._rows.items() if key in wanted}

    def get(self, key: str) -> C | None:
        """The finished row of that key."""
        return self._rows.get(key)

    def add(self, row: C) -> None:
        """Keep a row and write the file."""
        self._rows[row.key] = row
        self.write(tuple(self._rows))

    def extend(self, rows: Iterable[C]) -> None:
        """Keep several rows, which are finished together."""
        self._rows.update({row.key: row for row in list(rows)})
        self.write(tuple(self._rows))

    def write(self, order: Iterable[str], summary: tuple[S, ...] = ()) -> Document[C, S]:
        """Write the file with its rows in that order of keys; those that are not finished are left out."""
        document = self._form(
            experiment=self._experiment,
            provenance=self.provenance,
            rows=tuple(self._rows[key] for key in order if key in self._rows),
            summary=summary,
        )
        write_text(self.path, document.model_dump_json(indent=1) + "\n")
        return document

    def _read(self) -> tuple[C, ...]:
        if not self.path.exists():
            return ()
        try:
            found = read_document(self.path, self._form)
        except InputError:
            return ()  # of an older format: everything is measured again
        return found.rows if found.provenance.fingerprint == self.provenance.fingerprint else ()


D = TypeVar("D", bound=BaseModel)


def read_document(path: Path, form: type[D]) -> D:
    """A results file; InputError, one line, when it is none."""
    try:
        return form.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, ValidationError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"{path}: not a results file of this version ({first}); run the experiment"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def cell_key(**parts: object) -> str:
    """Digest of what a cell depends on: the code, and in `parts` checkpoint, request and clips."""
    made = {"code": code_version("torch", "transformers", "onnxruntime"), **parts}
    return hashlib.sha256(json.dumps(made, sort_keys=True, default=str).encode()).hexdigest()[:20]
