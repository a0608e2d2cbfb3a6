"""`eval` and `bench`: a bundle beside its checkpoint."""

from __future__ import annotations

import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from command_line import Captured, document, one_line
from tone_bundle import write_tone_bundle

from bitvox.benchmarks import latency
from bitvox.cli import run
from bitvox.errors import InputError
from bitvox.exporters.bundle import Bundle
from bitvox.exporters.runner import open_runner


class FakeLoading(types.ModuleType):
    """Stands for `frontend.loading`: the full-precision model is the faithful bundle of tones."""

    def __init__(self, bundle: Path, fingerprint: str = "0" * 64) -> None:
        super().__init__("bitvox.compiler.frontend.loading")
        self.bundle, self.fingerprint = bundle, fingerprint
        self.asked: list[str] = []

    def load_model(self, name: str) -> Any:
        self.asked.append(name)
        if name == "gone":
            raise InputError("model 'gone': no such folder")
        runner = open_runner(Bundle.open(self.bundle))
        return types.SimpleNamespace(
            transcribe=runner.transcribe, fingerprint=self.fingerprint, source=name, folder=self.bundle
        )


@pytest.fixture
def loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeLoading:
    fake = FakeLoading(write_tone_bundle(tmp_path / "faithful"))
    monkeypatch.setitem(sys.modules, "bitvox.compiler.frontend.loading", fake)
    return fake


def test_eval_beside_full_precision(
    tmp_path: Path, recordings: Path, loading: FakeLoading, capsys: Captured
) -> None:
    lossy = write_tone_bundle(tmp_path / "lossy", confuse=("A", "B"))
    (recordings / "t.csv").write_text("path,speaker,text\na.wav,x,bad\nü/b.flac,y,CAB ACE\n")
    command = ["eval", str(lossy), "--data", str(recordings / "t.csv")]
    assert run(command) == 0
    text = capsys.readouterr().out
    assert "word error rate changed by +100.00 points" in text
    assert "no regression on 0.0 % of clips" in text
    assert "bootstrapped over each speaker" in text
    found = document(capsys, command)
    assert found["full_precision"]["words"]["rate"]["percent"] == 0
    assert loading.asked == ["tones", "tones"]
    assert document(capsys, [*command, "--no-full-precision"])["comparison"] is None


def test_eval_of_a_folder_is_agreement(
    bundle: Path, recordings: Path, loading: FakeLoading, capsys: Captured
) -> None:
    assert run(["eval", str(bundle), "--data", str(recordings)]) == 0
    assert "100.0 % of clips the same" in capsys.readouterr().out


def test_another_checkpoint_is_no_comparison(
    bundle: Path, recordings: Path, loading: FakeLoading, capsys: Captured
) -> None:
    command = ["eval", str(bundle), "--data", str(recordings)]
    loading.fingerprint = "1" * 64
    assert "not the checkpoint that" in one_line(capsys, command, 2)
    assert "--no-full-precision" in one_line(capsys, [*command, "--checkpoint", "gone"], 2)


def test_bench_prints_the_ratio_whichever_way_it_falls(
    bundle: Path, loading: FakeLoading, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export(model: Any, folder: Path) -> None:
        for name in ("model.onnx", "model.onnx.data"):
            shutil.copy(model.folder / name, folder)

    module = types.ModuleType("bitvox.exporters.onnx.exporter")
    module.export_full_precision = export  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(latency, "FRESH_PROCESSES", 1)
    assert run(["bench", str(bundle), "--seconds", "1"]) == 0
    text = capsys.readouterr().out
    assert "x the time" in text
    assert "peak memory" in text
    found = document(capsys, ["bench", str(bundle), "--seconds", "1", "--no-full-precision"])
    assert found["time_ratio"] is None
    assert found["measured"]["bytes"] == Bundle.open(bundle).bytes
