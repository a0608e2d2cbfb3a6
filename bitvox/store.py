"""Finished results on disk, keyed by what they were made from, so that an interrupted run resumes."""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FileStore:
    """Values under hexadecimal keys, one file each, written whole or not at all.

    A store that cannot be written (a read-only home, a full disk) forgets: it costs time, never a result.
    """

    folder: Path

    def get(self, key: str) -> str | None:
        """The text kept under `key`, if any."""
        value = self.get_bytes(key)
        return None if value is None else value.decode()

    def put(self, key: str, value: str) -> None:
        """Keep a text under `key`."""
        self.put_bytes(key, value.encode())

    def get_bytes(self, key: str) -> bytes | None:
        """The bytes kept under `key`, if any."""
        with contextlib.suppress(OSError):
            return self._path(key).read_bytes()
        return None

    def put_bytes(self, key: str, value: bytes) -> None:
        """Keep bytes under `key`."""
        path = self._path(key)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
                written = Path(scratch) / key
                written.write_bytes(value)
                os.replace(written, path)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key


def default_store() -> FileStore:
    """The user's store: `BITVOX_CACHE`, else `bitvox` in the cache folder that XDG names."""
    named = os.environ.get("BITVOX_CACHE")
    if named:
        return FileStore(Path(named))
    base = os.environ.get("XDG_CACHE_HOME")
    return FileStore((Path(base) if base else _home() / ".cache") / "bitvox")


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # a user without a name, as in some containers: nothing is kept
        return Path(os.devnull)
