"""`bitvox.json`, the manifest of a bundle: what it is, what it came from, and whether it is whole."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from bitvox.compiler.frontend.audio import Clip
from bitvox.compiler.frontend.processor import AnyProcessor
from bitvox.compiler.passes.plan import QuantPlan
from bitvox.compiler.passes.plan_json import plan_from_json, plan_to_json
from bitvox.errors import InputError

FORMAT = 1
MANIFEST_NAME = "bitvox.json"
_REMEDY = "copy the bundle or compile it again"

_SHORT = 8
ShortDigest = Annotated[str, Field(pattern=f"^[0-9a-f]{{{_SHORT}}}$")]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def short_digest(clip: Clip) -> str:
    """Enough of a clip's digest to know it again (two of a thousand clips share one once in 9,000 times)."""
    return clip.digest[:_SHORT]


class _Schema(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Schema):
    """Size and SHA-256 of one file of the bundle."""

    bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256

    @classmethod
    def of(cls, path: Path) -> FileEntry:
        """The entry of a file as it is on disk."""
        with path.open("rb") as file:
            return cls(bytes=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


class Agreement(_Schema):
    """How the bundle did on clips held out of calibration, against the full-precision model.

    Attributes:
        clips: Number of clips judged.
        seconds: Their length.
        word_error_rate: Errors per word of the full-precision transcripts, in percent; of a classifier, whose
            transcript is one label, the share of labels that differ.
        identical: Share of clips whose transcript is the same, 0 to 1.
    """

    clips: Annotated[int, Field(ge=0)]
    seconds: Annotated[float, Field(ge=0)]
    word_error_rate: Annotated[float, Field(ge=0)]
    identical: Annotated[float, Field(ge=0, le=1)]


class Manifest(_Schema):
    """Everything that a bundle says of itself (a file boundary).

    Attributes:
        format: Version of this schema.
        bitvox: Version of bitvox that wrote it.
        target: Runtime that the model files are for: `onnx`.
        source: Name that the checkpoint was asked for by; `fingerprint`: its SHA-256.
        architecture: Class name of the checkpoint; `family`: `ctc`, `encoder-decoder` or `classifier`;
            `licence`: as its card names it, or `unknown`.
        processor: What turns samples into features and logits into text.
        plan: The plan, as `plan_to_json` writes it.
        files: Every file of the bundle but this one, by relative path.
        operators: Operators that the runtime must have, `domain:Name`, e.g. `ai.onnx:DequantizeLinear`.
        tested_with: Version of every package that the bundle was run with before it was shipped.
        audit: Kernel that each site reached, by site.
        agreement: Judgement on held-out clips; None where there was nothing to judge with.
        calibrated_on: `short_digest` of every clip that calibrated the bundle, which should not judge it.
        lengths: Seconds of audio up to which the model has a method that takes a clip in one piece; a longer
            clip goes in windows. Empty where one method takes any clip whole.
    """

    format: int = FORMAT
    bitvox: str
    target: str
    source: str
    fingerprint: str
    architecture: str
    family: str
    licence: str
    processor: AnyProcessor
    plan: dict[str, Any]
    files: dict[str, FileEntry]
    operators: tuple[str, ...]
    tested_with: dict[str, str]
    audit: dict[str, str]
    agreement: Agreement | None = None
    calibrated_on: tuple[ShortDigest, ...] = ()
    lengths: tuple[int, ...] = ()

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in files:
            parts = PurePosixPath(name).parts
            if not parts or name.startswith("/") or ".." in parts or "\\" in name:
                raise ValueError(f"{name!r} is no path inside the bundle")
        return files

    @staticmethod
    def plan_document(plan: QuantPlan) -> dict[str, Any]:
        """The value of `plan` for a plan; what other widths would have cost stays off the device."""
        decided = plan.replace(sites=tuple(entry.replace(costs=None) for entry in plan.sites))
        document: dict[str, Any] = json.loads(plan_to_json(decided))
        return document

    def quant_plan(self, origin: str) -> QuantPlan:
        """The plan inside; `origin` names the bundle in the InputError of a plan that is none."""
        return plan_from_json(json.dumps(self.plan), origin)

    def to_json(self) -> str:
        """The file's text: compact, exact, deterministic, closed by its own checksum."""
        document = self.model_dump(mode="json")
        return _compact({**document, "digest": _digest(document)}) + "\n"

    @classmethod
    def from_json(cls, text: str, origin: str) -> Manifest:
        """The manifest in a text; `origin` names the file in errors.

        Raises InputError, one line, when it is damaged, comes from another bitvox, or breaks the schema.
        """
        document = _parse(text, origin)
        version = document.get("format")
        if isinstance(version, int) and version > FORMAT:
            raise InputError(
                f"{origin}: was written by a newer bitvox (format {version}), "
                f"this one reads {FORMAT}: upgrade"
            )
        stated = document.pop("digest", None)
        if stated != _digest(document):
            raise InputError(f"{origin}: damaged (its checksum does not match); {_REMEDY}")
        if version != FORMAT:
            raise InputError(
                f"{origin}: was written by an older bitvox (format {version}), "
                f"this one reads {FORMAT}: compile it again"
            )
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InputError(f"{origin}: {where}: {first['msg']}") from None

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a folder; InputError when there is none or it cannot be used."""
        path = folder / MANIFEST_NAME
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise InputError(f"{folder}: not a bundle: it has no {MANIFEST_NAME}") from None
        except UnicodeDecodeError:
            raise InputError(f"{path}: damaged (not UTF-8); {_REMEDY}") from None
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None
        return cls.from_json(text, str(path))

    def write(self, folder: Path) -> None:
        """Write the manifest into a folder."""
        (folder / MANIFEST_NAME).write_text(self.to_json(), encoding="utf-8")


def _parse(text: str, origin: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deep"
        raise InputError(f"{origin}: damaged (not JSON: {reason}); {_REMEDY}") from None
    if not isinstance(document, dict) or "format" not in document:
        raise InputError(f'{origin}: not a manifest: a manifest is a JSON object with a "format"')
    return document


def _digest(document: dict[str, Any]) -> str:
    """SHA-256 of a document's canonical text, so that re-indenting the file does not break it."""
    return hashlib.sha256(_compact(document, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def _compact(document: dict[str, Any], *, sort_keys: bool = False) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), sort_keys=sort_keys)
