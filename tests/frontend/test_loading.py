"""Checkpoints in the hub's layout become models; what cannot be handled is named."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file
from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

from bitvox.compiler.frontend.families import FAMILIES
from bitvox.compiler.frontend.family import Family
from bitvox.compiler.frontend.graphs import Graph, Input
from bitvox.compiler.frontend.loading import load_model
from bitvox.compiler.frontend.sites import find_sites
from bitvox.errors import InputError
from support import noise_clips, tiny_model, write_tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def test_logits_are_those_of_transformers(checkpoint: Path) -> None:
    model = load_model(checkpoint)
    reference = Wav2Vec2ForCTC.from_pretrained(checkpoint).eval()
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(checkpoint)
    for samples in noise_clips():
        inputs = extractor(samples, sampling_rate=16000, return_tensors="pt").input_values
        with torch.inference_mode():
            expected = reference(inputs).logits[0].numpy()
        np.testing.assert_allclose(model.processor.features(samples), inputs[0].numpy(), atol=1e-5)
        np.testing.assert_allclose(model.logits(samples), expected, atol=1e-4)


def test_sites_are_every_linear_and_conv_in_execution_order() -> None:
    model = tiny_model()
    roles = [site.role for site in model.sites]
    assert roles[:5] == ["input_conv", "conv", "conv", "linear", "positional_conv"]
    assert roles[-1] == "head"
    assert len(model.sites) == 3 + 1 + 1 + 2 * 6 + 1
    positional = next(site for site in model.sites if site.role == "positional_conv")
    assert positional.conv is not None and positional.conv.groups == 2
    names = {parameter for parameter, _ in model.module.named_parameters()}
    assert not any("parametrizations" in name for name in names)


def test_the_positional_weight_is_its_direction_times_its_magnitude(checkpoint: Path) -> None:
    state, norm = load_file(checkpoint / "model.safetensors"), "wav2vec2.encoder.pos_conv_embed.conv"
    magnitude, direction = (state[f"{norm}.parametrizations.weight.original{part}"] for part in (0, 1))
    expected = direction * magnitude / direction.norm(dim=(0, 1), keepdim=True)
    model = load_model(checkpoint)
    positional = next(site for site in model.sites if site.role == "positional_conv")
    torch.testing.assert_close(model.site_module(positional).weight.detach(), expected)
    assert f"{positional.name}.weight" in dict(model.module.named_parameters())


def test_query_key_and_value_share_a_width() -> None:
    groups = [group for group in tiny_model().share_groups() if len(group) > 1]
    assert len(groups) == 2
    assert [site.name.rpartition(".")[2] for site in groups[0]] == ["q_proj", "k_proj", "v_proj"]


def test_pytorch_bin_loads_too(copy: Path) -> None:
    model = Wav2Vec2ForCTC.from_pretrained(copy)
    (copy / "model.safetensors").unlink()
    torch.save(model.state_dict(), copy / "pytorch_model.bin")
    assert load_model(copy).fingerprint == tiny_model().fingerprint


def test_a_checkpoint_as_published_loads(copy: Path) -> None:
    """wav2vec2-base-960h names its weight norm the old way and has no mask embedding."""
    state = load_file(copy / "model.safetensors")
    state.pop("wav2vec2.masked_spec_embed")
    norm = "wav2vec2.encoder.pos_conv_embed.conv"
    state[f"{norm}.weight_g"] = state.pop(f"{norm}.parametrizations.weight.original0")
    state[f"{norm}.weight_v"] = state.pop(f"{norm}.parametrizations.weight.original1")
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    samples = noise_clips()[0]
    np.testing.assert_allclose(load_model(copy).logits(samples), tiny_model().logits(samples), atol=1e-5)
    assert load_model(copy).fingerprint == load_model(copy).fingerprint


def test_weights_that_are_not_there_are_named(copy: Path) -> None:
    state = load_file(copy / "model.safetensors")
    state.pop("lm_head.weight")
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    assert "the weights lack lm_head.weight" in fails(copy)


def test_a_tensor_of_another_shape_is_named_with_both_shapes(
    copy: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    state = load_file(copy / "model.safetensors")
    state["lm_head.weight"] = state["lm_head.weight"][:, :-1].contiguous()
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    assert "the tensor lm_head.weight has shape [8, 31], config.json asks for [8, 32]" in fails(copy)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("preprocessor_config.json", {"sampling_rate": 8000}),
        ("preprocessor_config.json", {"do_normalize": False}),
        ("vocab.json", {"A": 6, "B": 5}),
    ],
)
def test_the_fingerprint_knows_the_processor(copy: Path, name: str, changes: dict[str, object]) -> None:
    """Results are kept by fingerprint: calibration depends on the rate and the normalisation."""
    edit_json(copy / name, **changes)
    assert load_model(copy).fingerprint != tiny_model().fingerprint


def test_decoding_collapses_repeats_and_blanks() -> None:
    processor = tiny_model().processor
    tokens = [0, 5, 5, 0, 5, 4, 4, 6, 1, 0]
    logits = np.eye(len(processor.vocabulary), dtype=np.float32)[tokens]
    assert processor.decode(logits) == "AA B"
    assert processor.decode(logits[:0]) == ""


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def fails(folder: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_such_checkpoint(tmp_path: Path) -> None:
    assert "no such folder" in fails(tmp_path / "nowhere")
    assert "no such folder" in fails("not a name")


def test_a_hub_that_cannot_be_reached_is_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unreachable(api: HfApi, repository: str) -> list[str]:
        logging.getLogger("huggingface_hub.utils").warning("thrown while requesting")
        raise OSError("no network")

    monkeypatch.setattr(HfApi, "list_repo_files", unreachable)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "neither a folder here nor to be had from the hub (no network)" in fails("nobody/nothing-here-xyz")
    assert not [record for record in caplog.records if record.name.startswith("huggingface_hub")]


def test_a_file_is_not_a_checkpoint(copy: Path) -> None:
    assert "a checkpoint is a folder" in fails(copy / "config.json")


def test_unsupported_architecture_names_the_supported(copy: Path) -> None:
    edit_json(copy / "config.json", architectures=["BertModel"])
    assert "BertModel is not supported; supported: " in fails(copy)


@pytest.mark.parametrize(
    "name", ["config.json", "vocab.json", "preprocessor_config.json", "model.safetensors"]
)
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    assert name in fails(copy)


def test_truncated_weights(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "cannot be loaded" in fails(copy)


def test_broken_config(copy: Path) -> None:
    (copy / "config.json").write_text("{")
    assert "config.json cannot be read" in fails(copy)


def graph_of(*shape: int) -> tuple[Graph, ...]:
    return (Graph("model", (Input("samples", shape),), ()),)


class _Recurrent(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.GRU(1, 4, batch_first=True)
        self.lm_head = torch.nn.Linear(4, 2)

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        return self.lm_head(self.inner(samples[..., None])[0])


def test_a_layer_that_cannot_be_handled_is_named_with_its_path() -> None:
    family: Family = FAMILIES["Wav2Vec2ForCTC"]
    with pytest.raises(InputError, match=r"layer 'inner' \(GRU\) cannot be handled: only Linear and Conv1d"):
        find_sites(_Recurrent().eval(), family, graph_of(1, 16))


def test_a_layer_that_runs_twice_is_named() -> None:
    shared = torch.nn.Linear(4, 4)
    with pytest.raises(InputError, match="runs 2 times"):
        find_sites(torch.nn.Sequential(shared, shared), FAMILIES["Wav2Vec2ForCTC"], graph_of(1, 4))
