"""What only Whisper has, in ONNX Runtime: languages, tasks and times, and positions of its encoder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from encoder_decoders import clip
from safetensors.torch import load_file, save_file
from transformers import WhisperForConditionalGeneration
from whisper_checkpoint import TorchGraphs, write_checkpoint

from bitvox.compiler.frontend.decoding import DecodingOptions
from bitvox.compiler.frontend.loading import load_model
from bitvox.compiler.frontend.long_form import transcribe
from bitvox.exporters.onnx.exporter import export_full_precision
from bitvox.exporters.onnx.session import open_session


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("whisper"))


@pytest.mark.parametrize("form", ["computed", "rounded to half", "its own"])
def test_positions_of_the_encoder_are_stored_only_where_they_are_no_sinusoids(
    checkpoint: Path, tmp_path: Path, form: str
) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "copy")
    state = load_file(folder / "model.safetensors")
    table = state["model.encoder.embed_positions.weight"]
    if form == "rounded to half":
        table.copy_(table.half())
    if form == "its own":
        table.add_(0.1 * torch.randn(table.shape, generator=torch.Generator().manual_seed(0)))
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    model = load_model(folder)
    features = torch.from_numpy(model.processor.features(clip(0)))[None]
    encoder = WhisperForConditionalGeneration.from_pretrained(folder).eval().model.encoder
    with torch.inference_mode():
        expected = encoder(features).last_hidden_state
        torch.testing.assert_close(model.module.encode(features), expected, rtol=0, atol=1e-5)
    stored = [name for name, value in model.module.named_buffers() if value.shape == table.shape]
    assert len(stored) == (form == "its own")


@pytest.mark.parametrize(
    "options",
    [
        DecodingOptions(language="de", task="translate", max_tokens=9),
        DecodingOptions(timestamps=True),
        DecodingOptions(timestamps=True, beams=4),
    ],
    ids=str,
)
def test_full_precision_writes_what_transformers_writes(
    checkpoint: Path, tmp_path: Path, options: DecodingOptions
) -> None:
    """`TorchGraphs` is transformers' own module and cache, which test_search holds to `generate`."""
    model = load_model(checkpoint)
    reference = WhisperForConditionalGeneration.from_pretrained(checkpoint).eval()
    session = open_session(export_full_precision(model, tmp_path / "full").parent, num_threads=1)
    for seed in range(3):
        expected = transcribe(TorchGraphs(reference), model.processor, clip(seed), options)
        assert model.processor.listen(session, clip(seed), options) == expected
