"""Whisper's three graphs in ONNX Runtime: transformers' text at full precision, every width at every site."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from transformers import WhisperForConditionalGeneration
from whisper_checkpoint import SECONDS, TorchGraphs, write_checkpoint

from bitvox.compiler.frontend.decoding import DecodingOptions
from bitvox.compiler.frontend.graph_decoder import GraphDecoder
from bitvox.compiler.frontend.loading import load_model
from bitvox.compiler.frontend.long_form import transcribe
from bitvox.compiler.frontend.model import FloatArray, SpeechModel
from bitvox.compiler.frontend.session import Session
from bitvox.compiler.lowering.packed import full_precision, lower
from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.calibrate import CalibratePass
from bitvox.compiler.passes.plan import WIDTHS, Activations, Kernels, QuantPlan
from bitvox.compiler.passes.start import start_plan
from bitvox.exporters.onnx.build import write_model
from bitvox.exporters.onnx.exporter import prove
from bitvox.exporters.onnx.session import open_session
from bitvox.exporters.onnx.skeleton import build_skeleton
from bitvox.runtime_kernels.adapters.onnxruntime.library import library_path
from support import PackedCosts

RATE = 16_000
GRAPHS = ("encoder", "cross", "step")
INTEGER = {"MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearConv"}


def clip(seed: int) -> FloatArray:
    """Noise and a tone, up to a window long."""
    draw = np.random.default_rng(seed)
    time = np.arange(draw.integers(RATE // 4, SECONDS * RATE)) / RATE
    tone = np.sin(2 * np.pi * draw.uniform(100, 4000) * time)
    return (0.1 * draw.standard_normal(time.size) + 0.3 * tone).astype(np.float32)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> SpeechModel:
    return load_model(checkpoint)


@pytest.fixture(scope="module")
def skeleton(model: SpeechModel) -> bytes:
    return build_skeleton(model)


@pytest.fixture(scope="module")
def exported(
    model: SpeechModel, skeleton: bytes, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Session]:
    folder = tmp_path_factory.mktemp("full")
    write_model(skeleton, full_precision(model), folder)
    return folder, open_session(folder, num_threads=1)


def test_every_weight_is_a_site_of_one_graph(model: SpeechModel) -> None:
    assert model.family == "encoder-decoder"
    assert [len([site for site in model.sites if site.graph == name]) for name in GRAPHS] == [8, 4, 17]
    weights = {f"{site.name}.weight" for site in model.sites}
    left = [key for key, value in model.module.named_parameters() if value.ndim > 1 and key not in weights]
    assert left == []
    tied = [site for site in model.sites if site.tied]
    assert [(site.name, site.role) for site in tied] == [("proj_out", "embedding")]
    groups = [len(group) for group in model.share_groups()]
    assert sorted(groups)[-5:] == [2, 2, 3, 3, 3]


def test_the_module_on_its_inputs_gives_the_logits_of_its_own_greedy_decoding(
    model: SpeechModel, checkpoint: Path
) -> None:
    reference = WhisperForConditionalGeneration.from_pretrained(checkpoint).eval()
    for samples in (clip(0), clip(1)[:500], np.zeros(RATE, np.float32)):
        features, prompt, tokens = model.inputs(samples)
        with torch.inference_mode():
            forced = model.module(features, prompt, tokens)[0].numpy()
            read = torch.cat((prompt, tokens[:, :-1]), dim=1)
            expected = reference(features, decoder_input_ids=read).logits[0, prompt.shape[1] - 1 :].numpy()
        scale = np.abs(expected).max()
        np.testing.assert_allclose(forced, expected, atol=1e-5 * scale)
        np.testing.assert_allclose(model.logits(samples), expected, atol=1e-5 * scale)
        if samples.size > RATE // 4 and samples.any():  # of a shorter one, tokens are cut off as a loop
            assert model.processor.decode(forced) == model.transcribe(samples)


@pytest.mark.parametrize(
    "options",
    [
        DecodingOptions(),
        DecodingOptions(language="de", task="translate", max_tokens=9),
        DecodingOptions(timestamps=True, beams=4),
    ],
    ids=str,
)
def test_full_precision_writes_what_transformers_writes(
    model: SpeechModel, checkpoint: Path, exported: tuple[Path, Session], options: DecodingOptions
) -> None:
    """`TorchGraphs` is transformers' own module and cache, which test_search holds to `generate`."""
    reference = WhisperForConditionalGeneration.from_pretrained(checkpoint).eval()
    _, session = exported
    for seed in range(3):
        expected = transcribe(TorchGraphs(reference), model.processor, clip(seed), options)
        assert model.processor.listen(session, clip(seed), options) == expected
        assert model.processor.listen(model.session, clip(seed), options) == expected


def test_greedy_decoding_is_generate_token_by_token(
    model: SpeechModel, checkpoint: Path, exported: tuple[Path, Session]
) -> None:
    reference = WhisperForConditionalGeneration.from_pretrained(checkpoint).eval()
    for seed in range(3):
        features, prompt, tokens = model.processor.inputs(exported[1], clip(seed))
        [expected] = reference.generate(
            torch.from_numpy(features),
            language="en" if prompt[0, 1] == model.processor.languages["en"] else None,
            task="transcribe",
            max_new_tokens=tokens.shape[1],
            force_unique_generate_call=True,
        ).tolist()
        assert expected[: prompt.shape[1] + tokens.shape[1]] == [*prompt[0].tolist(), *tokens[0].tolist()]


def test_rows_of_a_state_can_be_left_out_repeated_and_swapped(
    model: SpeechModel, exported: tuple[Path, Session]
) -> None:
    graphs = GraphDecoder(exported[1])
    _, state = graphs.step(graphs.encode(model.processor.features(clip(0))), np.array([[1, 2, 3]]))
    _, state = graphs.step(graphs.reorder(state, np.array([0, 0])), np.array([[4], [5]]))
    logits, _ = graphs.step(graphs.reorder(state, np.array([1, 0, 1])), np.array([[6], [6], [7]]))
    alone = graphs.encode(model.processor.features(clip(0)))
    for row, read in zip(logits, ([1, 2, 3, 5, 6], [1, 2, 3, 4, 6], [1, 2, 3, 5, 7]), strict=True):
        expected, _ = graphs.step(alone, np.array([read]))
        np.testing.assert_allclose(row, expected[0], atol=1e-4)


def plan_at(model: SpeechModel, bits: int, activations: Activations, kernels: Kernels = "stock") -> QuantPlan:
    plan = start_plan(model, PackedCosts(), "onnx", "default", activations, kernels)
    sites = (site if site.bits is None else site.replace(bits=bits) for site in plan.sites)
    clips = (clip(0), clip(1)[:500], np.zeros(RATE, np.float32))
    context = PassContext(model, clips, PackedCosts())
    return CalibratePass("min-max").run(context, plan.replace(sites=tuple(sites)))


@pytest.mark.parametrize("activations", ["static", "dynamic"])
def test_every_width_agrees_at_every_site(
    tmp_path: Path, model: SpeechModel, skeleton: bytes, activations: Activations
) -> None:
    for bits in WIDTHS:
        plan = plan_at(model, bits, activations)
        packed = lower(model, plan)
        folder = tmp_path / str(bits)
        folder.mkdir()
        written = write_model(skeleton, packed, folder)
        report = prove(model, packed, written, clip(2), allow_float=False)
        assert list(report.parity.difference) == [site.name for site in model.sites]
        assert report.parity.worst[1] < 1e-3
        integer = {site.site for site in plan.sites if site.activations != "float"}
        assert {report.kernels[name] for name in integer} <= INTEGER
        modes = {plan.site(site.name).activations for site in model.sites if site.role == "decoder"}
        assert modes == {"dynamic"}


@pytest.mark.skipif(not library_path().is_file(), reason="the operator library was not built")
def test_packed_kernels_agree_at_every_site_and_look_up_the_weight_that_they_multiply(
    tmp_path: Path, model: SpeechModel, skeleton: bytes
) -> None:
    for bits in WIDTHS:
        plan = plan_at(model, bits, "static", "packed")
        packed = lower(model, plan)
        folder = tmp_path / str(bits)
        folder.mkdir()
        written = write_model(skeleton, packed, folder)
        report = prove(model, packed, written, clip(2), allow_float=False)
        assert report.parity.worst[1] < 1e-3
        assert {kernel.split()[0] for kernel in report.kernels.values()} == {"NBitLinear", "NBitConv1d"}
        step = onnx.load(folder / "step.onnx", load_external_data=False).graph
        (lookup,) = (node for node in step.node if node.op_type == "NBitLookup")
        readers = [node.op_type for node in step.node if lookup.input[1] in node.input]
        assert sorted(readers) == ["NBitLinear", "NBitLookup"]


def test_a_tied_weight_is_stored_once(tmp_path: Path, model: SpeechModel, skeleton: bytes) -> None:
    sizes = {}
    for bits in (3, 4):
        folder = tmp_path / str(bits)
        folder.mkdir()
        plan = plan_at(model, 8, "static")
        sites = (entry.replace(bits=bits) if entry.site == "proj_out" else entry for entry in plan.sites)
        written = write_model(skeleton, lower(model, plan.replace(sites=tuple(sites))), folder)
        sizes[bits] = written.data.stat().st_size
        step = onnx.load(folder / "step.onnx", load_external_data=False).graph
        plane = next(
            tensor for tensor in step.initializer if list(tensor.dims)[:1] == [model.processor.outputs]
        )
        assert sum(plane.name in node.input for node in step.node) == 2
    assert sizes[4] - sizes[3] == model.site("proj_out").weights // 8
