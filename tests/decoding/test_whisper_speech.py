"""The shipped encoder-decoder on recordings of people: the text of transformers' own pipeline."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from transformers import pipeline

from bitvox.benchmarks.experiments.speech import AN4, speech_folder
from bitvox.benchmarks.metrics import count_words, error_rate
from bitvox.compiler.frontend.audio import read_clip
from bitvox.compiler.frontend.decoding import DecodingOptions
from bitvox.compiler.frontend.loading import load_model, resolve_checkpoint
from bitvox.compiler.frontend.model import FloatArray
from bitvox.errors import InputError
from bitvox.exporters.onnx.exporter import export_full_precision
from bitvox.exporters.onnx.session import open_session

CLIPS = 10


@pytest.fixture(scope="module")
def recordings() -> tuple[list[FloatArray], list[str]]:
    """Samples of recordings of several speakers, and what they say."""
    try:
        folder = speech_folder() / AN4
    except InputError as error:
        pytest.skip(str(error))
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "dev"]
    chosen = rows[:: len(rows) // CLIPS][:CLIPS]
    assert len({row["speaker"] for row in chosen}) > 3
    return [read_clip(folder / row["path"], 16_000).samples for row in chosen], [r["text"] for r in chosen]


@pytest.mark.parametrize("beams", [1, 5])
def test_people_are_written_down_as_transformers_writes_them(
    recordings: tuple[list[FloatArray], list[str]], tmp_path: Path, beams: int
) -> None:
    clips, texts = recordings
    listen = pipeline("automatic-speech-recognition", str(resolve_checkpoint("reference-whisper")))
    asked = {"num_beams": beams}
    theirs = [
        listen({"raw": clip, "sampling_rate": 16_000}, generate_kwargs=asked)["text"].strip()
        for clip in clips
    ]
    model = load_model("reference-whisper")
    session = open_session(export_full_precision(model, tmp_path / "full").parent, num_threads=1)
    options = DecodingOptions(beams=beams)
    ours = [model.processor.listen(session, clip, options).text for clip in clips]
    assert ours == theirs
    assert error_rate(count_words(texts, ours), list(range(len(clips)))).rate.percent < 50
