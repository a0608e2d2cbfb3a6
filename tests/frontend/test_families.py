"""Every family: the numbers of transformers, every weight a site, what runs in no site named."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from encoder_decoders import DECODERS
from safetensors.torch import load_file, save_file
from transformers import ParakeetTokenizer

from bitvox.benchmarks.experiments.readme import README, fill
from bitvox.benchmarks.experiments.supported import supported_table
from bitvox.compiler.frontend.families import FAMILIES
from bitvox.compiler.frontend.loading import load_model
from bitvox.compiler.frontend.prepare import prepare
from bitvox.compiler.frontend.sites import find_sites
from bitvox.compiler.frontend.waveform import ctc_family
from bitvox.errors import InputError
from support import noise_clips
from tiny_families import LABELS, PIECES, TINY, tiny_family

RECOGNISERS = [name for name, tiny in TINY.items() if tiny.recogniser]
CLASSIFIERS = [name for name in TINY if name not in RECOGNISERS]
ATTENTION_INPUTS = {"q_proj", "k_proj", "v_proj", "linear_q", "linear_k", "linear_v"}


def test_every_family_of_the_table_is_tested() -> None:
    decoders = {tiny.reference.__name__ for tiny in DECODERS.values()}
    assert decoders == {name for name, family in FAMILIES.items() if family.kind == "encoder-decoder"}
    assert decoders | {tiny.architecture for tiny in TINY.values()} == set(FAMILIES)


def test_the_readme_lists_the_table() -> None:
    text = README.read_text(encoding="utf-8")
    assert fill(text, {"families": supported_table()}) == text


@pytest.fixture(scope="module", params=TINY)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, TINY[request.param].write(tmp_path_factory.mktemp(request.param))


def test_logits_are_those_of_transformers(checkpoint: tuple[str, Path]) -> None:
    name, folder = checkpoint
    tiny, model = TINY[name], load_model(folder)
    reference = getattr(transformers, tiny.architecture).from_pretrained(folder).eval()
    for samples in (*noise_clips(2), noise_clips(samples=40_000)[0]):
        read = tiny.read(samples)
        features = model.processor.features(samples)
        assert features.shape == model.processor.input_shape(samples.size) == read.shape[1:]
        np.testing.assert_allclose(features, read[0].numpy(), atol=1e-4)
        with torch.inference_mode():
            expected = np.atleast_2d(reference(read).logits[0].numpy())
            logits = np.atleast_2d(model.module(read)[0].numpy())
        np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())
        near = 1e-4 if tiny.reads_mel else 1e-5  # a log-mel front end is transformers' own to float32
        np.testing.assert_allclose(model.logits(samples), expected, atol=near * np.abs(expected).max())


@pytest.mark.parametrize("name", ["bert", "bert-relative", "bert-rotary", "parakeet", "parakeet-bare"])
def test_a_frame_that_the_extractor_adds_and_masks_changes_nothing(tmp_path: Path, name: str) -> None:
    folder = TINY[name].write(tmp_path)
    reference = getattr(transformers, TINY[name].architecture).from_pretrained(folder).eval()
    samples = noise_clips(1, 4000)[0]
    inputs = TINY[name].extractor(samples, sampling_rate=16000, return_tensors="pt")
    assert inputs["attention_mask"][0].tolist() == [1] * (inputs["attention_mask"].shape[1] - 1) + [0]
    logits = tiny_family(name).logits(samples)
    with torch.inference_mode():
        expected = reference(**inputs).logits[0, : len(logits)].numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())


def test_a_published_checkpoint_lacks_the_mask_embedding(
    checkpoint: tuple[str, Path], tmp_path: Path
) -> None:
    name, folder = checkpoint
    copy = shutil.copytree(folder, tmp_path / "copy")
    state = load_file(copy / "model.safetensors")
    masked = [key for key in state if key.endswith("masked_spec_embed")]
    if not masked:
        pytest.skip(f"{TINY[name].architecture} has no mask embedding that a checkpoint could lack")
    state.pop(*masked)
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    samples = noise_clips()[0]
    np.testing.assert_array_equal(load_model(copy).logits(samples), tiny_family(name).logits(samples))


@pytest.mark.parametrize("name", TINY)
def test_every_weight_is_a_site_in_execution_order(name: str) -> None:
    model = tiny_family(name)
    sites = model.sites
    assert len(sites) == TINY[name].sites
    extractor = [] if TINY[name].reads_mel else ["input_conv", "conv", "conv"]
    convolutions = len(extractor)
    assert [site.role for site in sites[: convolutions + 1]] == [*extractor, "linear"]
    if not TINY[name].writes_pieces and not TINY[name].reads_patches:
        assert sites[convolutions].name.endswith("feature_projection.projection")
    assert [site.role for site in sites].count("head") == 1
    assert sites[-1].role == "head"
    weights = {f"{site.name}.weight" for site in sites}
    left = [key for key, value in model.module.named_parameters() if value.ndim > 1 and key not in weights]
    assert left == []


@pytest.mark.parametrize("name", TINY)
def test_query_key_and_value_share_a_width_and_nothing_else_does(name: str) -> None:
    groups = [group for group in tiny_family(name).share_groups() if len(group) > 1]
    assert [len(group) for group in groups] == [3] * (3 if name == "bert-adapter" else 2)
    for group in groups:
        assert {site.name.rpartition(".")[2] for site in group} < ATTENTION_INPUTS


@pytest.mark.parametrize("name", ["wavlm", "conformer-relative", "bert"])
def test_what_a_family_must_rewrite_is_refused_by_name_without_it(tmp_path: Path, name: str) -> None:
    """Projections that run inside a fused function, biases that no site multiplies with."""
    family = FAMILIES[TINY[name].architecture]
    bare = replace(family, wrap=ctc_family(family.architecture).wrap)
    module, processor = bare.load(TINY[name].write(tmp_path))
    prepare(module)
    with pytest.raises(InputError, match=r"layer '[\w.]+(att|pos_conv)[\w.]+' \(\w+\) cannot be handled"):
        find_sites(bare.wrap(module), bare, bare.graphs(module, processor))


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("conformer-relative", (11, 113)),
        ("conformer-rotary", (11, 113)),
        ("bert-relative", (2, 27)),
        ("bert-rotary", (2, 27)),
        ("parakeet", (2, 14)),
    ],
)
def test_positions_are_computed_for_each_clip_and_not_kept(name: str, frames: tuple[int, int]) -> None:
    """transformers keeps a table of the longest clip, which would be a constant of every file."""
    model = tiny_family(name)
    short, long = (noise_clips(1, samples)[0] for samples in (900, 9000))
    first = model.logits(short)
    assert (len(first), len(model.logits(long))) == frames
    np.testing.assert_array_equal(model.logits(short), first)
    assert max(value.numel() for value in model.module.buffers()) < 1000


def test_pieces_of_words_are_joined_as_the_tokenizer_joins_them(tmp_path: Path) -> None:
    folder = TINY["parakeet"].write(tmp_path)
    tokenizer = ParakeetTokenizer.from_pretrained(folder)
    processor = tiny_family("parakeet").processor
    for tokens in np.random.default_rng(0).integers(0, len(PIECES), (20, 12)):
        expected = " ".join(tokenizer.decode(tokens.tolist(), skip_special_tokens=True).split())
        assert processor.decode(np.eye(len(PIECES), dtype=np.float32)[tokens]) == expected


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"pad_token_id": None},
            "pad_token_id None is the CTC blank and must be one of the head's 8 outputs",
        ),
        ({"pad_token_id": 8}, "pad_token_id 8 is the CTC blank and must be one of the head's 8 outputs"),
    ],
)
def test_a_broken_parakeet_is_refused(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    folder = TINY["parakeet"].write(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changed))
    with pytest.raises(InputError, match=message):
        load_model(folder)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_names_one_label_for_a_clip_of_any_length(name: str) -> None:
    model = tiny_family(name)
    assert (model.family, model.processor.outputs) == ("classifier", len(LABELS))
    for samples in (*noise_clips(1, 400), *noise_clips(1, 9000)):
        logits = model.logits(samples)
        assert logits.shape == (1, len(LABELS))
        assert model.transcribe(samples) == LABELS[int(logits.argmax())]


def test_two_outputs_with_one_label_are_refused(tmp_path: Path) -> None:
    folder = TINY["wav2vec2-keywords"].write(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"]["1"] = "yes"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="one label to two outputs"):
        load_model(folder)
