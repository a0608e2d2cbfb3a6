"""`Bundle`, the folder that ships, and the one way to write it: whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bitvox.disk import no_room
from bitvox.errors import InputError, RequestError
from bitvox.exporters.manifest import MANIFEST_NAME, FileEntry, Manifest

_Filled = TypeVar("_Filled")

_REMEDY = "copy the bundle or compile it again"

# What a disk must have left for it to be worth the work: no model's bundle is smaller.
_LEAST_FREE = 65_536


@dataclass(frozen=True)
class Bundle:
    """A compiled model on disk: its folder and what its manifest says."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path) -> Bundle:
        """The bundle in a folder, without loading the model.

        Raises InputError, one line, when there is no such folder, it is no bundle, its manifest is damaged
        or from a newer bitvox, or a file is missing or has another size than the manifest says.
        """
        if not folder.exists():
            raise InputError(f"{folder}: no such bundle; give the folder that `bitvox compile --out` wrote")
        if not folder.is_dir():
            raise InputError(f"{folder}: not a bundle; a bundle is the folder with {MANIFEST_NAME}")
        bundle = cls(folder, Manifest.read(folder))
        for name, entry in bundle.manifest.files.items():
            fault = _size_fault(folder / name, entry)
            if fault:
                raise InputError(f"{folder / name}: {fault}; {_REMEDY}")
        return bundle

    @property
    def bytes(self) -> int:
        """Bytes that the bundle takes: the sizes of all files in the folder, by os.stat."""
        return folder_bytes(self.folder)

    def check_hashes(self) -> None:
        """Raise InputError that names the first file whose content is not what was written."""
        for name, entry in self.manifest.files.items():
            if FileEntry.of(self.folder / name) != entry:
                raise InputError(
                    f"{self.folder / name}: damaged (SHA-256 differs); copy the bundle or compile it again"
                )

    def faults(self) -> list[str]:
        """Every difference between the folder and the manifest: missing, cut, damaged and extra files."""
        found = []
        for name, entry in self.manifest.files.items():
            path = self.folder / name
            fault = _size_fault(path, entry)
            if not fault and FileEntry.of(path) != entry:
                fault = "damaged: its SHA-256 is not the one in the manifest"
            if fault:
                found.append(f"{name}: {fault}")
        return found + [f"{name}: extra: not in the manifest" for name in _extra(self.folder, self.manifest)]


def folder_bytes(folder: Path) -> int:
    """Sum of the sizes of all files below a folder, by os.stat: what a budget bounds."""
    return sum(path.stat().st_size for path in _files(folder))


def check_output(out: Path) -> None:
    """Raise when no bundle can be written at `out`; call it before any work is done, and it leaves nothing.

    A folder that holds anything but one bundle is never touched.

    Raises InputError where the place is taken or cannot be written, RequestError where the disk is full.
    """
    _require_free(out)
    with _disk_may_be_full(out), _temporary_sibling(_resolved(out)) as folder:
        # A place may let folders be made and yet hold no file.
        (folder / MANIFEST_NAME).write_bytes(bytes(_LEAST_FREE))


def _resolved(out: Path) -> Path:
    return Path(os.path.realpath(out))  # `Path.resolve` raises where links lead in a circle


def _require_free(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: a file is there; name a folder for the bundle")
    if out.is_dir() and any(out.iterdir()):
        _require_replaceable(out)


def write_atomically(out: Path, fill: Callable[[Path], _Filled]) -> _Filled:
    """Make a bundle appear at `out` whole or not at all; returns what `fill` returns.

    `fill` writes it into an empty sibling folder, which is synced to disk and then renamed. A bundle that
    was at `out` is replaced; whatever is left by a run that was killed is cleaned up.

    Raises InputError as `check_output` does and RequestError when the disk is full. On any exception, Ctrl-C
    included, what was at `out` is as it was and nothing else is left.
    """
    out = _resolved(out)
    _require_free(out)
    _clean_up(out)
    with _disk_may_be_full(out), _temporary_sibling(out) as folder:
        filled = fill(folder)
        _sync(folder)
        with _in_turn(out.parent):
            _replace(out, folder)
    return filled


@contextmanager
def _disk_may_be_full(out: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        fault = no_room(error)
        if fault:
            raise RequestError(f"{out}: {fault}; free some space or choose another --out") from error
        raise


def _require_replaceable(out: Path) -> None:
    if not (out / MANIFEST_NAME).is_file():
        raise InputError(f"{out}: exists and is not a bundle; name a new folder")
    extra = _extra(out, Manifest.read(out))
    if extra:
        raise InputError(
            f"{out}: holds {extra[0]}, which is not part of its bundle; move it or name a new folder"
        )


def _extra(folder: Path, manifest: Manifest) -> list[str]:
    names = (path.relative_to(folder).as_posix() for path in _files(folder))
    return sorted(name for name in names if name != MANIFEST_NAME and name not in manifest.files)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _size_fault(path: Path, entry: FileEntry) -> str | None:
    if not path.is_file():
        return "missing"
    size = path.stat().st_size
    return None if size == entry.bytes else f"has {size} bytes, the manifest says {entry.bytes}"


def _partial_prefix(out: Path) -> str:
    return f".{out.name}.partial-"


def _aside(out: Path) -> Path:
    return out.with_name(f".{out.name}.replaced")


@contextmanager
def _temporary_sibling(out: Path) -> Iterator[Path]:
    """An empty folder beside `out`, locked while this process lives, gone at the end unless renamed.

    Folders above it that were made for it go with it.
    """
    folder = out.with_name(_partial_prefix(out) + secrets.token_hex(4))
    made = [parent for parent in out.parents if not parent.exists()]
    try:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            with _in_turn(out.parent):  # or another could take it for abandoned before it is locked
                folder.mkdir()
                lock = _locked(folder)
        except OSError as error:
            place = next(parent for parent in out.parents if parent.exists())
            raise InputError(
                f"{out}: cannot write below {place}: {error.strerror}; choose another --out"
            ) from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
    finally:
        _remove_empty(made)


def _locked(folder: Path) -> int:
    """A handle of a folder, whose lock is held until it is closed, where the file system has locks."""
    handle = os.open(folder, os.O_RDONLY)
    with contextlib.suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX)
    return handle


@contextmanager
def _in_turn(folder: Path) -> Iterator[None]:
    """One process at a time, so that none finds another's replacement half done."""
    handle = _locked(folder)
    try:
        yield
    finally:
        os.close(handle)


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, the innermost first, up to one that holds something."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _clean_up(out: Path) -> None:
    """Remove the temporaries of killed runs, known by their free lock; undo a half-done replacement."""
    if not out.parent.is_dir():
        return
    with _in_turn(out.parent):
        _remove_abandoned(out)
        aside = _aside(out)
        if aside.is_dir():
            if out.exists():
                shutil.rmtree(aside)
            else:
                aside.rename(out)


def _remove_abandoned(out: Path) -> None:
    for folder in out.parent.glob(glob.escape(_partial_prefix(out)) + "*"):
        try:
            lock = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # its owner was quicker
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # its owner lives, or nobody can tell
            continue
        finally:
            os.close(lock)


def _sync(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _replace(out: Path, folder: Path) -> None:
    """Rename `folder` to `out`; what was there steps aside: a rename cannot replace a full folder."""
    aside = _aside(out)
    if out.exists():
        out.rename(aside)
    try:
        folder.rename(out)
    except BaseException:
        if aside.exists():
            aside.rename(out)
        raise
    shutil.rmtree(aside, ignore_errors=True)
