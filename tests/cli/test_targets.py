"""What can go wrong with packed kernels in both runtimes: one line, and nothing half-written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from command_line import Captured, document, one_line
from operator_libraries import unbuilt_executorch, unbuilt_onnxruntime

pytest.importorskip("executorch", reason="the extra 'executorch' is not installed")
if missing := unbuilt_onnxruntime() or unbuilt_executorch():
    pytest.skip(missing, allow_module_level=True)

from bitvox.cli import run
from bitvox.exporters.manifest import MANIFEST_NAME, Manifest
from bitvox.runtime_kernels.adapters.executorch import library as executorch_library
from bitvox.runtime_kernels.adapters.onnxruntime import library as onnxruntime_library
from support import write_tiny_checkpoint

LIBRARIES = {
    "BITVOX_ONNXRUNTIME_LIBRARY": onnxruntime_library.library_path(),
    "BITVOX_EXECUTORCH_LIBRARY": executorch_library.library_path(),
}

WAYS = {
    "onnx packed": ("--target", "onnx", "--kernels", "packed"),
    "executorch": ("--target", "executorch"),
}
# Where a computer for 64-bit ARM, number 183, is named in an ELF file.
_MACHINE, _ARM = 18, 183


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is lowered for one test is lowered for all."""
    monkeypatch.setenv("BITVOX_CACHE", str(cache))
    executorch_library.load_library.cache_clear()
    yield
    executorch_library.load_library.cache_clear()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips that can be used and five that cannot."""
    folder = tmp_path_factory.mktemp("voice")
    noise = (0.1 * np.random.default_rng(0).standard_normal(8000)).astype(np.float32)
    for index in range(4):
        soundfile.write(folder / f"{index}.wav", noise[500 * index :], 16000)
    soundfile.write(folder / "nan.wav", np.full(8000, np.nan, np.float32), 16000, subtype="FLOAT")
    soundfile.write(folder / "two.wav", noise[:2], 16000)
    soundfile.write(folder / "zero.wav", np.zeros(8000), 16000)
    (folder / "cut.flac").write_bytes(b"fLaC\0")
    (folder / "empty.wav").write_bytes(b"")
    return folder


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def compiled(way: str, checkpoint: Path, voice: Path, cache: Path) -> Path:
    """A bundle of that way at full width."""
    out = cache / "bundles" / way
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BITVOX_CACHE", str(cache))
        assert run([*compile_words(way, checkpoint, voice, out), "--budget", "1MB"]) == 0
    return out


@pytest.fixture
def copy(compiled: Path, tmp_path: Path) -> Path:
    """The bundle, to be broken."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in compiled.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def compile_words(way: str, checkpoint: Path, voice: Path, out: Path) -> list[str]:
    return ["compile", str(checkpoint), "--audio", str(voice), "--out", str(out), *WAYS[way]]


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_the_smallest_budget_is_named_and_can_be_met(
    way: str, checkpoint: Path, voice: Path, tmp_path: Path, capsys: Captured
) -> None:
    words = compile_words(way, checkpoint, voice, tmp_path / "out")
    line = one_line(capsys, [*words, "--budget", "1kB"], 1)
    assert list(tmp_path.iterdir()) == []
    found = re.search(r"the smallest bundle of this model for this voice takes (\d+) bytes", line)
    assert found, line
    made = document(capsys, [*words, "--budget", found.group(1)])
    on_disk = sum(path.stat().st_size for path in files_of(tmp_path / "out"))
    assert made["bytes"] == on_disk <= int(found.group(1))
    assert document(capsys, ["verify", str(tmp_path / "out")])["findings"] == []


def test_clips_that_cannot_be_used_are_skipped_by_name(compiled: Path, voice: Path, capsys: Captured) -> None:
    found = document(capsys, ["transcribe", str(compiled), str(voice)], code=2)
    broken = {Path(entry["path"]).name for entry in found["transcripts"] if "error" in entry}
    assert {"nan.wav", "two.wav", "cut.flac", "empty.wav"} <= broken
    assert {"0.wav", "1.wav", "2.wav", "3.wav"}.isdisjoint(broken)


def test_a_foreign_folder_is_left_alone(
    way: str, checkpoint: Path, voice: Path, tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    words = [*compile_words(way, checkpoint, voice, tmp_path), "--budget", "1MB"]
    assert "exists and is not a bundle" in one_line(capsys, words, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_flipped_byte_is_named_in_every_file(copy: Path, voice: Path, capsys: Captured) -> None:
    for path in files_of(copy):
        whole = path.read_bytes()
        # Its weights, its graph, and the text of a manifest.
        for position in (len(whole) // 3, len(whole) // 2, len(whole) - 40):
            flipped = bytearray(whole)
            flipped[position] ^= 1
            path.write_bytes(flipped)
            line = one_line(capsys, ["transcribe", str(copy), str(voice / "0.wav")], 2)
            assert path.name in line and "damaged" in line
        path.write_bytes(whole)


def test_a_missing_file_is_named(copy: Path, voice: Path, capsys: Captured) -> None:
    for path in files_of(copy):
        whole = path.read_bytes()
        path.unlink()
        line = one_line(capsys, ["transcribe", str(copy), str(voice / "0.wav")], 2)
        assert path.name in line and ("missing" in line or "not a bundle" in line)
        path.write_bytes(whole)


def test_a_newer_format_asks_for_an_upgrade(copy: Path, voice: Path, capsys: Captured) -> None:
    manifest = json.loads((copy / MANIFEST_NAME).read_text())
    (copy / MANIFEST_NAME).write_text(json.dumps({**manifest, "format": manifest["format"] + 1}))
    for command in (["transcribe", str(copy), str(voice)], ["verify", str(copy)], ["inspect", str(copy)]):
        line = one_line(capsys, command, 2)
        assert "was written by a newer bitvox" in line and "upgrade" in line


def test_a_plan_that_the_weights_do_not_follow_is_a_finding(copy: Path, capsys: Captured) -> None:
    """A manifest that was written anew, checksum included, and says another width."""
    manifest = Manifest.read(copy)
    plan = manifest.quant_plan("plan")
    site = next(entry for entry in plan.sites if entry.bits)
    other = plan.replace(sites=tuple(e.replace(bits=6) if e is site else e for e in plan.sites))
    manifest.model_copy(update={"plan": Manifest.plan_document(other)}).write(copy)
    (finding,) = document(capsys, ["verify", str(copy)], code=1)["findings"]
    assert re.fullmatch(r"packed weights: \d+ of 8 bits; the plan says 1 of 6 bits, \d+ of 8 bits", finding)


def test_inspect_says_what_full_precision_is_stored_as(way: str, compiled: Path, capsys: Captured) -> None:
    sites = document(capsys, ["inspect", str(compiled)])["sites"]
    stored = {row["how"].split(",")[0] for row in sites if row["bits"] is None}
    assert stored == {"float16" if way.startswith("onnx") else "float32"}


@pytest.mark.parametrize("fault", ["missing", "of another machine", "no library"])
def test_an_operator_library_that_cannot_be_used_is_named(
    way: str,
    fault: str,
    compiled: Path,
    checkpoint: Path,
    voice: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:
    for variable, library in LIBRARIES.items():
        path = tmp_path / library.name
        if fault != "missing":
            content = bytearray(library.read_bytes() if fault == "of another machine" else b"a text")
            content[_MACHINE : _MACHINE + 1] = bytes([_ARM])
            path.write_bytes(content)
        monkeypatch.setenv(variable, str(path))
    transcribe = ["transcribe", str(compiled), str(voice / "0.wav")]
    compile_again = [*compile_words(way, checkpoint, voice, tmp_path / "out"), "--budget", "1MB"]
    needed = (onnxruntime_library if way.startswith("onnx") else executorch_library).LIBRARY_NAME
    for command in (transcribe, compile_again):
        line = one_line(capsys, command, 2)
        assert needed in line
        assert ("missing" if fault == "missing" else "does not") in line
    assert not (tmp_path / "out").exists()
    assert run(["verify", str(compiled)]) == 1
    assert needed in capsys.readouterr().out
