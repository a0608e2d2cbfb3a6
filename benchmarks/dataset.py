"""The recordings that a bundle is judged on: a table with transcripts, or just a folder of audio."""

from __future__ import annotations

import csv
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bitvox.compiler.frontend.audio import find_audio
from bitvox.errors import InputError

# The first that a table has.
_TEXT_COLUMNS = ("text", "label", "keyword")


@dataclass(frozen=True)
class Utterance:
    """One recording; `speaker` and `text` are None where they are not known. A label is a text too."""

    path: Path
    speaker: str | None
    text: str | None


@dataclass(frozen=True)
class Dataset:
    """Recordings in a fixed order, and the path that they were asked for by."""

    origin: Path
    utterances: tuple[Utterance, ...]


def clusters(utterances: Sequence[Utterance]) -> tuple[list[Hashable], str]:
    """What an interval resamples, per recording: its `speaker`, or the `clip` itself unless two are known."""
    speakers: list[Hashable] = [utterance.speaker for utterance in utterances]
    if None not in speakers and len(set(speakers)) > 1:
        return speakers, "speaker"
    return list(range(len(utterances))), "clip"


def read_dataset(
    path: Path, split: str | None = None, speaker: str | None = None, limit: int | None = None
) -> Dataset:
    """The recordings of a CSV table, or of a folder.

    A table has a header with `path` (relative to the table's folder) and, where known, `speaker`, `text` (of
    keywords also `label` or `keyword`) and `split`; other columns are left alone. A folder gives every audio
    file below it, without speakers or transcripts. `limit` keeps that many, evenly spaced, so that they still
    come from all speakers.

    Raises InputError, one line, for a missing file or column, a recording that does not exist (with its
    line), an option that the table cannot answer, and when nothing is left.
    """
    if path.is_dir():
        if split or speaker:
            raise InputError(f"{path}: a folder of audio has no splits or speakers; give a CSV table")
        found = [Utterance(file, None, None) for file in find_audio(path)]
    else:
        found = _read_table(path, {"split": split, "speaker": speaker})
    if limit is not None and limit < 1:
        raise InputError(f"limit {limit}: keep at least 1 recording")
    if limit is not None and limit < len(found):
        found = [found[index * len(found) // limit] for index in range(limit)]
    return Dataset(path, tuple(found))


def _read_table(path: Path, wanted: dict[str, str | None]) -> list[Utterance]:
    rows = _rows(path)
    for column, value in wanted.items():
        if value is None:
            continue
        if column not in rows[0]:
            raise InputError(f"{path}: no column {column!r} to choose {value!r} from")
        known = sorted({row[column] or "" for row in rows})
        rows = [row for row in rows if row[column] == value]
        if not rows:
            listed = ", ".join(known[:8]) + (", …" if len(known) > 8 else "")
            raise InputError(f"{path}: no row with {column} {value!r}; there is {listed}")
    utterances = []
    for row in rows:
        file = path.parent / str(row["path"])
        if not file.is_file():
            raise InputError(f"{path}: line {row[_LINE]}: no such recording: {file}")
        utterances.append(Utterance(file, row.get("speaker") or None, _text(row)))
    return utterances


def _text(row: dict[str, str | None]) -> str | None:
    return next((row[column] for column in _TEXT_COLUMNS if column in row), None)


_LINE = "\0line"


def _rows(path: Path) -> list[dict[str, str | None]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restkey="\0rest")
            rows = [{**row, _LINE: str(reader.line_num)} for row in reader]
            columns = reader.fieldnames or ()
    except FileNotFoundError:
        raise InputError(f"{path}: no such table or folder; give a CSV table or a folder of audio") from None
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise InputError(f"{path}: not a CSV table in UTF-8: {error}") from None
    if "path" not in columns:
        raise InputError(
            f"{path}: no column 'path'; the header names path and, where known, speaker, text, split"
        )
    if not rows:
        raise InputError(f"{path}: the table has no rows")
    return rows
