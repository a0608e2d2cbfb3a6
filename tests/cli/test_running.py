"""`transcribe` and `verify`: a line for each recording, whatever its name and whatever is broken."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import soundfile
from command_line import Captured, document, imports_none_of, one_line, script
from tone_bundle import play

from bitvox.cli import run


def test_transcribe_prints_a_line_per_recording(bundle: Path, recordings: Path, capsys: Captured) -> None:
    assert run(["transcribe", str(bundle), str(recordings)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{recordings}/a.wav\tBAD",
        f"{recordings}/ü/b.flac\tCAB ACE",
    ]
    found = document(capsys, ["transcribe", str(bundle), str(recordings / "a.wav")])
    assert found["transcripts"] == [
        {"path": str(recordings / "a.wav"), "seconds": pytest.approx(0.71), "text": "BAD"}
    ]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--language", "en"], "language"),
        (["--task", "translate"], "task"),
        (["--timestamps"], "timestamps"),
        (["--beams", "5"], "beams"),
    ],
)
def test_transcribe_refuses_what_only_whisper_does(
    bundle: Path, recordings: Path, capsys: Captured, options: list[str], named: str
) -> None:
    line = one_line(capsys, ["transcribe", str(bundle), str(recordings), *options], 2)
    assert line.startswith(f"bitvox: {named}: only a model that writes token after token, as Whisper does")


def test_transcribe_goes_on_after_a_broken_recording(
    bundle: Path, recordings: Path, capsys: Captured
) -> None:
    (recordings / "aa.wav").write_bytes(b"junk")
    soundfile.write(recordings / "ab.wav", play("A")[:3], 16000)
    assert run(["transcribe", str(bundle), str(recordings)]) == 2
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    warnings = [line for line in err.splitlines() if line.startswith("bitvox: warning: skipped ")]
    assert ["aa.wav" in warnings[0], "ab.wav" in warnings[1]] == [True, True]
    found = document(capsys, ["transcribe", str(bundle), str(recordings)], code=2)
    assert ["error" in entry for entry in found["transcripts"]] == [False, True, True, False]


def test_transcribe_goes_on_after_a_place_without_recordings(
    bundle: Path, recordings: Path, tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "empty").mkdir()
    places = [str(recordings / "a.wav"), str(tmp_path / "empty"), str(tmp_path / "gone"), str(recordings)]
    assert run(["transcribe", str(bundle), *places]) == 2
    out, err = capsys.readouterr()
    assert [line.split("\t")[1] for line in out.splitlines()] == ["BAD", "BAD", "CAB ACE"]
    warnings = [line for line in err.splitlines() if line.startswith("bitvox: warning: skipped ")]
    assert ["empty: no audio in it" in warnings[0], "gone: no such file" in warnings[1]] == [True, True]
    found = document(capsys, ["transcribe", str(bundle), *places], code=2)
    assert [entry["path"] for entry in found["transcripts"] if "error" in entry] == places[1:3]
    line = one_line(capsys, ["transcribe", str(bundle), *places[1:3]], 2)
    assert line == "bitvox: none of the 2 places holds a recording (each is named above)"


def test_a_name_that_would_break_the_lines_is_escaped(bundle: Path, tmp_path: Path, capsys: Captured) -> None:
    name = tmp_path / "a\nb\tc\x1b[2Jü.wav"
    soundfile.write(str(name), play("BAD"), 16000)
    bad = tmp_path / "bad\n.wav"
    bad.write_bytes(b"junk")
    assert run(["transcribe", str(bundle), str(name), str(bad)]) == 2
    out, err = capsys.readouterr()
    assert out == f"{tmp_path}/a\\nb\\tc\\x1b[2Jü.wav\tBAD\n"
    assert sum("bad\\n.wav" in line for line in err.splitlines()) == 1
    assert document(capsys, ["transcribe", str(bundle), str(name)])["transcripts"][0]["path"] == str(name)


def test_a_damaged_bundle_does_not_transcribe(bundle: Path, recordings: Path, capsys: Captured) -> None:
    data = bundle / "model.onnx.data"
    data.write_bytes(b"\1" + data.read_bytes()[1:])
    assert "damaged" in one_line(capsys, ["transcribe", str(bundle), str(recordings)], 2)
    assert run(["verify", str(bundle)]) == 1
    assert capsys.readouterr().out.startswith("model.onnx.data: damaged")
    assert document(capsys, ["verify", str(bundle)], code=1)["ok"] is False


def test_verify_says_that_all_is_well(bundle: Path, capsys: Captured) -> None:
    assert run(["verify", str(bundle)]) == 0
    assert "whole, and runs here (3 files" in capsys.readouterr().out
    assert document(capsys, ["verify", str(bundle)]) == {"bundle": str(bundle), "ok": True, "findings": []}


def test_transcribe_and_verify_need_no_torch(bundle: Path, recordings: Path) -> None:
    heavy = "torch,transformers,onnx,onnxscript,onnx_ir,jiwer"
    done = imports_none_of(heavy, "transcribe", str(bundle), str(recordings / "a.wav"))
    assert (done.returncode, done.stdout) == (0, f"{recordings}/a.wav\tBAD\n"), done.stderr
    assert imports_none_of(heavy, "verify", str(bundle)).returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_full_disk_under_stdout_is_one_line(bundle: Path, recordings: Path, options: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        command = script("transcribe", str(bundle), str(recordings), *options)
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("bitvox: ")


def test_a_reader_that_has_enough_is_no_failure_to_speak_of(bundle: Path, recordings: Path) -> None:
    command = script("transcribe", str(bundle), *[str(recordings)] * 50)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().endswith("BAD\n")
        process.stdout.close()
        errors = process.stderr.read()
    assert "Traceback" not in errors
    assert "bitvox: " not in errors
