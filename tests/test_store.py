"""Where finished results are kept, and that a place which keeps nothing costs no result."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitvox.store import FileStore, default_store


def test_what_is_put_is_there(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "new")
    assert store.get("abcd") is None
    store.put("abcd", "text")
    store.put_bytes("abce", b"\0")
    assert (store.get("abcd"), store.get_bytes("abce")) == ("text", b"\0")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["abcd", "abce"]


def test_the_environment_names_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BITVOX_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_store().folder == tmp_path / ".cache" / "bitvox"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert default_store().folder == tmp_path / "x" / "bitvox"
    monkeypatch.setenv("BITVOX_CACHE", str(tmp_path / "y"))
    assert default_store().folder == tmp_path / "y"


def test_a_user_without_a_home_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("BITVOX_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nameless)
    store = default_store()
    store.put("abcd", "text")
    assert store.get("abcd") is None


def test_a_place_that_cannot_be_written_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = FileStore(tmp_path / "file" / "store")
    store.put("abcd", "text")
    assert store.get("abcd") is None
