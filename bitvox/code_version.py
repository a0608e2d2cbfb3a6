"""Which code computed a kept result: by its files, for a version number stands still while code changes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

# The rooms whose code decides what a compile writes.
_ROOMS = ("bitvox.compiler", "bitvox.exporters")
_CODE = {".py", ".so"}


@cache
def code_version(*packages: str) -> str:
    """SHA-256 over the modules of the rooms that decide a result and versions of bitvox and `packages`."""
    digest = hashlib.sha256()
    for name in ("bitvox", *packages):
        digest.update(f"{name} {version(name)}\n".encode())
    for name, path in _sources():
        digest.update(f"{name}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _sources() -> Iterator[tuple[str, Path]]:
    """Every module of the rooms under a name that does not depend on where they are installed."""
    for room in _ROOMS:
        spec = find_spec(room)
        assert spec is not None and spec.submodule_search_locations is not None
        for folder in sorted(map(Path, spec.submodule_search_locations)):
            for path in sorted(path for path in folder.rglob("*") if path.suffix in _CODE):
                yield f"{room}/{path.relative_to(folder).as_posix()}", path
