"""Checkpoints of other families through the command line: the same road as wav2vec2's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from bitvox.cli import app
from bitvox.compiler.frontend.loading import load_model
from bitvox.exporters.manifest import Manifest
from support import noise_clips, run
from tiny_families import LABELS, TINY


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voice")
    generator = np.random.default_rng(0)
    for index in range(5):
        samples = 0.1 * generator.standard_normal(6000 + 500 * index)
        soundfile.write(folder / f"{index}.wav", samples.astype(np.float32), 16000)
    return folder


@pytest.mark.parametrize("name", ["wavlm", "conformer-relative", "bert"])
def test_a_recogniser_goes_the_whole_road(tmp_path: Path, voice: Path, name: str) -> None:
    checkpoint, bundle = TINY[name].write(tmp_path / "checkpoint"), tmp_path / "bundle"
    largest = run("compile", checkpoint, "--audio", voice, "--budget", "1MB", "--out", bundle)
    budget = largest["bytes"] - 3000
    compiled = run("compile", checkpoint, "--audio", voice, "--budget", budget, "--out", bundle)
    assert compiled["bytes"] == sum(path.stat().st_size for path in bundle.iterdir()) <= budget
    assert compiled["average_bits"] < largest["average_bits"] == 8
    assert compiled["parity"] < 1e-3
    in_float = set() if TINY[name].reads_mel else {"Conv"}
    assert set(compiled["kernels"].values()) == in_float | {"MatMulIntegerToFloat", "QLinearConv"}
    assert run("verify", bundle)["findings"] == []
    assert run("inspect", bundle)["total"] == compiled["bytes"]
    assert len(run("transcribe", bundle, voice)["transcripts"]) == 5
    judged = run("eval", bundle, "--data", voice, "--checkpoint", checkpoint)
    assert judged["comparison"]["word_error_rate"]["length"] > 0
    assert run("bench", bundle, "--seconds", "0.5", "--checkpoint", checkpoint)["time_ratio"]["median"] > 0


def test_a_keyword_classifier_goes_the_whole_road(tmp_path: Path, voice: Path) -> None:
    checkpoint, bundle = TINY["wav2vec2-keywords"].write(tmp_path / "checkpoint"), tmp_path / "bundle"
    budget = 40_000
    compiled = run("compile", checkpoint, "--audio", voice, "--budget", budget, "--out", bundle)
    assert compiled["bytes"] == sum(path.stat().st_size for path in bundle.iterdir()) <= budget
    assert compiled["average_bits"] < 8
    assert compiled["agreement"]["identical"] in (0, 1)  # one clip is held out
    assert run("verify", bundle)["findings"] == []
    heard = [entry["text"] for entry in run("transcribe", bundle, voice)["transcripts"]]
    assert set(heard) <= set(LABELS)

    told = heard.copy()
    told[0] = next(label for label in LABELS if label != heard[0])
    rows = [f"{index}.wav,{'ann' if index < 2 else 'ben'},{label}" for index, label in enumerate(told)]
    table = voice / "table.csv"
    table.write_text("path,speaker,label\n" + "\n".join(rows))
    judged = run("eval", bundle, "--data", table, "--checkpoint", checkpoint)
    assert judged["scores"]["accuracy"] == {"percent": 80, "low": 50, "high": 100}
    assert judged["scores"]["words"] is judged["scores"]["words_on_silence"] is None
    assert judged["clustered_by"] == "speaker"
    differing = judged["comparison"]["word_error_rate"]["rate"]["percent"]
    assert judged["comparison"]["identical"] == pytest.approx(1 - differing / 100)
    words = ["eval", bundle, "--data", table, "--checkpoint", checkpoint]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert "bundle accuracy" in result.stdout and "WER" not in result.stdout


def test_a_bundle_says_how_its_features_are_made(tmp_path: Path, voice: Path) -> None:
    """The manifest alone is enough: what it describes is what transformers' extractor computes."""
    tiny = TINY["bert"]
    checkpoint, bundle = tiny.write(tmp_path / "checkpoint"), tmp_path / "bundle"
    run("compile", checkpoint, "--audio", voice, "--budget", "1MB", "--out", bundle)
    processor = Manifest.read(bundle).processor
    assert processor == load_model(checkpoint).processor
    samples = noise_clips(1, 9000)[0]
    options = {"sampling_rate": 16000, "pad_to_multiple_of": None, "return_tensors": "np"}
    expected = tiny.extractor(samples, **options).input_features[0]
    np.testing.assert_allclose(processor.features(samples), expected, atol=1e-4)
