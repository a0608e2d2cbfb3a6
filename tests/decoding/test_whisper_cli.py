"""Whisper through the command line: the same road as a CTC model's."""

from __future__ import annotations

from pathlib import Path

import pytest
from encoder_decoders import write_voice
from typer.testing import CliRunner
from whisper_checkpoint import write_checkpoint

from bitvox.cli import app
from support import run


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_voice(tmp_path_factory.mktemp("voice"))


def test_an_encoder_decoder_goes_the_whole_road(tmp_path: Path, voice: Path) -> None:
    checkpoint, bundle = write_checkpoint(tmp_path / "checkpoint", width=64), tmp_path / "bundle"
    largest = run("compile", checkpoint, "--audio", voice, "--budget", "1MB", "--out", bundle)
    budget = largest["bytes"] - 30_000
    compiled = run("compile", checkpoint, "--audio", voice, "--budget", budget, "--out", bundle)
    assert compiled["bytes"] == sum(path.stat().st_size for path in bundle.iterdir()) <= budget
    planned = sum(site["stored_bytes"] for site in compiled["plan"]["sites"])
    planned += compiled["plan"]["fixed_bytes"]
    assert 0 <= planned - compiled["bytes"] < 200  # digits of the judgement, names of kernels
    assert compiled["average_bits"] < largest["average_bits"] == 8
    assert compiled["parity"] < 1e-3
    assert set(compiled["kernels"].values()) == {
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
        "QLinearConv",
    }
    assert sorted(path.name for path in bundle.glob("*.onnx*")) == [
        "cross.onnx",
        "encoder.onnx",
        "model.onnx.data",
        "step.onnx",
    ]
    assert run("verify", bundle)["findings"] == []
    assert run("inspect", bundle)["total"] == compiled["bytes"]
    assert len(run("transcribe", bundle, voice)["transcripts"]) == 5
    asked = ["--language", "german", "--task", "translate", "--timestamps", "--beams", 2]
    [found] = run("transcribe", bundle, voice / "4.wav", *asked)["transcripts"]
    assert found["language"] == "de"
    assert found["text"] == " ".join(part["text"] for part in found["segments"])
    times = [part[edge] for part in found["segments"] for edge in ("start", "end")]
    assert times == sorted(times)
    assert times[-1] <= found["seconds"]
    refused = CliRunner().invoke(app, ["transcribe", str(bundle), str(voice), "--language", "klingon"])
    assert "language 'klingon': this model knows de, en, zh" in str(refused.exception)
    judging = [
        "eval",
        bundle,
        "--data",
        voice,
        "--checkpoint",
        checkpoint,
        "--language",
        "German",
        "--beams",
        2,
    ]
    judged = run(*judging)
    assert judged["comparison"]["word_error_rate"]["length"] > 0
    assert judged["decoding"]["language"] == "German"
    heard = run("transcribe", bundle, voice, "--language", "de", "--beams", 2)["transcripts"]
    assert [one["bundle"] for one in judged["transcripts"]] == [one["text"] for one in heard]
    refused = CliRunner().invoke(app, [str(word) for word in (*judging[:4], "--language", "klingon")])
    assert "language 'klingon': this model knows de, en, zh" in str(refused.exception)
    assert run("bench", bundle, "--seconds", "0.5", "--checkpoint", checkpoint)["time_ratio"]["median"] > 0
