"""A bundle is whole or not there, and every fault in one has its line."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tone_bundle import play, write_tone_bundle, write_tone_model

from bitvox.errors import BitvoxError, InputError, RequestError
from bitvox.exporters.bundle import Bundle, check_output, write_atomically
from bitvox.exporters.manifest import MANIFEST_NAME, Manifest
from bitvox.exporters.runner import open_runner
from bitvox.exporters.verify import verify


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def flip(path: Path, position: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_it_opens_weighs_and_transcribes(bundle_folder: Path) -> None:
    bundle = Bundle.open(bundle_folder)
    assert bundle.bytes == sum(os.stat(bundle_folder / name).st_size for name in listing(bundle_folder))
    runner = open_runner(bundle)
    assert runner.transcribe(play("BAD CAB")) == "BAD CAB"
    assert runner.transcribe(np.zeros(16000, dtype=np.float32)) == ""
    assert runner.logits(play("A")).shape == (57, 7)
    assert verify(bundle_folder) == []


def test_samples_that_cannot_be_run_are_refused(bundle_folder: Path) -> None:
    runner = open_runner(Bundle.open(bundle_folder))
    for samples, complaint in (
        (np.zeros(2), "too short"),
        (np.zeros((2, 800)), "one mono clip"),
        (np.full(800, np.nan), "NaN"),
    ):
        with pytest.raises(InputError, match=complaint):
            runner.logits(samples.astype(np.float32))


def test_places_that_hold_no_bundle(bundle_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for place, complaint in (
        (tmp_path / "gone", "no such bundle"),
        (bundle_folder / "model.onnx", "not a bundle"),
        (tmp_path / "empty", "not a bundle: it has no bitvox.json"),
    ):
        with pytest.raises(InputError, match=complaint):
            Bundle.open(place)


def test_a_missing_and_a_cut_file(bundle_folder: Path) -> None:
    data = bundle_folder / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"model\.onnx\.data: has \d+ bytes, the manifest says"):
        Bundle.open(bundle_folder)
    data.unlink()
    with pytest.raises(InputError, match=r"model\.onnx\.data: missing"):
        Bundle.open(bundle_folder)
    assert verify(bundle_folder) == ["model.onnx.data: missing"]


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data"])
def test_a_flipped_byte_is_found_before_anything_runs(bundle_folder: Path, name: str) -> None:
    flip(bundle_folder / name)
    bundle = Bundle.open(bundle_folder)
    with pytest.raises(InputError, match=f"{name}: damaged"):
        open_runner(bundle)
    (finding,) = verify(bundle_folder)
    assert finding.startswith(f"{name}: damaged")


def rewrite(folder: Path, **changes: object) -> None:
    """Change the manifest and sign it again, as a compile would have written it."""
    Manifest.read(folder).model_copy(update=changes).write(folder)


def test_verify_names_every_finding(bundle_folder: Path) -> None:
    (bundle_folder / "notes.txt").write_text("mine")
    rewrite(bundle_folder, operators=("ai.onnx:Conv", "bitvox:Linear"))
    findings = verify(bundle_folder)
    assert findings == [
        "notes.txt: extra: not in the manifest",
        "operator bitvox:Linear: not in the runtime here",
    ]


def test_verify_holds_a_bundle_to_its_budget(bundle_folder: Path) -> None:
    plan = Manifest.read(bundle_folder).plan
    rewrite(bundle_folder, plan={**plan, "budget": 100})
    assert "over its budget of 100" in verify(bundle_folder)[0]


def test_verify_runs_the_model(bundle_folder: Path) -> None:
    processor = Manifest.read(bundle_folder).processor
    rewrite(bundle_folder, processor=processor.model_copy(update={"vocabulary": ("<pad>", "|")}))
    assert "the processor knows 2 outputs" in verify(bundle_folder)[0]


def test_a_target_without_a_runtime_is_named(bundle_folder: Path) -> None:
    rewrite(bundle_folder, target="toaster")
    with pytest.raises(InputError, match="made for target 'toaster', this bitvox runs onnx"):
        open_runner(Bundle.open(bundle_folder))


def test_a_file_that_the_runtime_refuses_is_one_line(bundle_folder: Path) -> None:
    from tone_bundle import tone_manifest

    (bundle_folder / MANIFEST_NAME).unlink()
    (bundle_folder / "model.onnx").write_bytes(b"no protobuf")
    tone_manifest(bundle_folder).write(bundle_folder)
    with pytest.raises(InputError, match=r"ONNX Runtime .* refuses it") as caught:
        open_runner(Bundle.open(bundle_folder))
    assert "\n" not in str(caught.value)


def test_writing_replaces_a_bundle_and_leaves_nothing_beside_it(bundle_folder: Path) -> None:
    write_tone_bundle(bundle_folder, confuse=("A", "B"))
    assert open_runner(Bundle.open(bundle_folder)).transcribe(play("CAB")) == "CB"
    assert listing(bundle_folder.parent) == ["model"]
    assert listing(bundle_folder) == ["bitvox.json", "model.onnx", "model.onnx.data"]


def test_a_bundle_has_the_permissions_of_an_ordinary_folder(bundle_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "ordinary").mkdir()
    assert bundle_folder.stat().st_mode == (tmp_path / "ordinary").stat().st_mode


@pytest.mark.parametrize("error", [ValueError("bug"), KeyboardInterrupt(), RequestError("no")])
def test_a_failed_write_leaves_what_was_there(bundle_folder: Path, error: BaseException) -> None:
    before = {path.name: path.read_bytes() for path in bundle_folder.iterdir()}

    def fill(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise error

    with pytest.raises(type(error)):
        write_atomically(bundle_folder, fill)
    assert listing(bundle_folder.parent) == ["model"]
    assert {path.name: path.read_bytes() for path in bundle_folder.iterdir()} == before


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    ("code", "fault"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EFBIG, "a file would be larger than is allowed there"),
    ],
)
def test_a_full_disk_is_one_line(tmp_path: Path, wrapped: bool, code: int, fault: str) -> None:
    def fill(folder: Path) -> None:
        (folder / "half").write_text("x" * 2000)
        full = OSError(code, "what the system calls it")
        if wrapped:
            raise RuntimeError("writer failed") from full
        raise full

    with pytest.raises(RequestError, match=f"out: {fault}; free some space"):
        write_atomically(tmp_path / "out", fill)
    assert listing(tmp_path) == []


def test_folders_that_are_not_a_bundle_are_never_touched(bundle_folder: Path, tmp_path: Path) -> None:
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter1.txt").write_text("years of work")
    (bundle_folder / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("x")
    for place, complaint in (
        (thesis, "exists and is not a bundle"),
        (bundle_folder, r"holds notes\.txt, which is not part"),
        (tmp_path / "file", "a file is there"),
        (tmp_path / "file" / "below", "cannot write below"),
        (Path("/proc/bitvox/model"), "cannot write below /proc"),
    ):
        with pytest.raises(InputError, match=complaint):
            check_output(place)
        with pytest.raises(InputError):
            write_atomically(place, write_tone_model)
    assert (thesis / "chapter1.txt").read_text() == "years of work"
    assert listing(tmp_path) == ["file", "model", "thesis"]


def test_a_place_without_room_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder can be made, its files cannot."""

    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RequestError, match=r"out: the disk is full; free some space"):
        check_output(tmp_path / "new" / "out")
    assert listing(tmp_path) == []


def test_new_parents_and_empty_folders_are_fine(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "empty", tmp_path / "a" / "b" / "ü [1]*"):
        write_tone_bundle(place)
        assert verify(place) == []


@pytest.mark.parametrize("error", [ValueError("bug"), KeyboardInterrupt(), RequestError("no")])
def test_a_failed_write_removes_the_folders_that_it_made(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "there").mkdir()

    def fill(folder: Path) -> None:
        raise error

    with pytest.raises(type(error)):
        write_atomically(tmp_path / "there" / "a" / "b" / "model", fill)
    assert listing(tmp_path / "there") == []


def test_links_that_lead_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(InputError, match="cannot write below"):
        check_output(tmp_path / "a" / "model")


def test_a_link_to_a_bundle_stays_a_link(bundle_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(bundle_folder, target_is_directory=True)
    write_tone_bundle(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert verify(tmp_path / "link") == []


REPLACING = """
import sys
from pathlib import Path
from bitvox.exporters.bundle import write_atomically
def fill(folder):
    (folder / "bitvox.json").write_text("{}")
print("ready", flush=True)
sys.stdin.readline()
from bitvox.exporters import bundle
bundle._require_free = lambda out: None  # what is there is always one of theirs
for _ in range(200):
    write_atomically(Path(sys.argv[1]), fill)
"""


def test_writers_of_one_bundle_take_turns(tmp_path: Path) -> None:
    """Each finds the other's temporaries and its half-done replacements, and leaves them alone."""
    command = [sys.executable, "-c", REPLACING, str(tmp_path / "model")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    writers = [subprocess.Popen(command, text=True, **pipes) for _ in range(2)]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        _, errors = writer.communicate(timeout=60)
        assert writer.returncode == 0, errors
    assert listing(tmp_path) == ["model"]


KILLED = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell runs tests in the background
from pathlib import Path
from bitvox.exporters.bundle import write_atomically
def fill(folder):
    (folder / "half").write_text("x")
    print("filling", flush=True)
    time.sleep(60)
write_atomically(Path(sys.argv[1]), fill)
"""


def start_writer(out: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(out)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "filling\n"
    return process


def test_what_a_killed_run_left_is_cleaned_up_and_a_living_one_is_not(tmp_path: Path) -> None:
    out = tmp_path / "model"
    killed, living = start_writer(out), start_writer(out)
    try:
        killed.kill()
        killed.wait()
        assert len(listing(tmp_path)) == 2
        write_tone_bundle(out)
        assert len(listing(tmp_path)) == 2
        assert verify(out) == []
        living.send_signal(signal.SIGINT)
        living.wait(timeout=10)
        assert listing(tmp_path) == ["model"]
    finally:
        for process in (killed, living):
            process.kill()
            process.wait()


def test_a_replacement_cut_in_the_middle_is_undone(bundle_folder: Path) -> None:
    aside = bundle_folder.with_name(f".{bundle_folder.name}.replaced")
    bundle_folder.rename(aside)

    def fail(folder: Path) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        write_atomically(bundle_folder, fail)
    assert verify(bundle_folder) == []
    assert not aside.exists()
    shutil.copytree(bundle_folder, aside)
    write_tone_bundle(bundle_folder)
    assert not aside.exists()


def test_a_manifest_of_another_program_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / MANIFEST_NAME).write_text(json.dumps({"name": "something else"}))
    with pytest.raises(InputError, match="not a manifest"):
        Bundle.open(tmp_path / "other")
    with pytest.raises(BitvoxError):
        write_tone_bundle(tmp_path / "other")
