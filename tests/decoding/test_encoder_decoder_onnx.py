"""Encoder-decoders as three graphs in ONNX Runtime: transformers' tokens, every width at every site."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from encoder_decoders import DECODERS, TinyDecoder, clip
from operator_libraries import require_onnxruntime

from bitvox.compiler.frontend.decoding import DecodingOptions
from bitvox.compiler.frontend.graph_decoder import GraphDecoder
from bitvox.compiler.frontend.loading import load_model
from bitvox.compiler.frontend.long_form import Listener
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
from support import PackedCosts

RATE = 16_000
GRAPHS = ("encoder", "cross", "step")
INTEGER = {"MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearConv"}


@pytest.fixture(scope="module", params=DECODERS)
def tiny(request: pytest.FixtureRequest) -> TinyDecoder:
    return DECODERS[request.param]


@pytest.fixture(scope="module")
def checkpoint(tiny: TinyDecoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> SpeechModel:
    return load_model(checkpoint)


def clips(model: SpeechModel) -> tuple[FloatArray, ...]:
    """A clip, one that is hardly heard, and silence."""
    return clip(0), clip(1)[: max(500, model.processor.minimum_samples)], np.zeros(RATE, np.float32)


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


def test_every_weight_is_a_site_of_one_graph(tiny: TinyDecoder, model: SpeechModel) -> None:
    assert model.family == "encoder-decoder"
    counts = [len([site for site in model.sites if site.graph == name]) for name in GRAPHS]
    assert counts == list(tiny.sites)
    weights = {f"{site.name}.weight" for site in model.sites}
    left = [key for key, value in model.module.named_parameters() if value.ndim > 1 and key not in weights]
    assert left == []
    tied = [site for site in model.sites if site.tied]
    assert [(site.name, site.role) for site in tied] == [("proj_out", "embedding")]
    groups = [len(group) for group in model.share_groups()]
    assert sorted(groups)[-5:] == [2, 2, 3, 3, 3]


def test_the_module_on_its_inputs_gives_the_logits_of_its_own_greedy_decoding(
    tiny: TinyDecoder, model: SpeechModel, checkpoint: Path
) -> None:
    reference = tiny.reference.from_pretrained(checkpoint).eval()
    for samples in clips(model):
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


@pytest.mark.parametrize("beams", [1, 3])
def test_full_precision_writes_the_tokens_of_generate(
    tiny: TinyDecoder, model: SpeechModel, checkpoint: Path, exported: tuple[Path, Session], beams: int
) -> None:
    reference = tiny.reference.from_pretrained(checkpoint).eval()
    options = DecodingOptions(beams=beams)
    ended = []
    for seed in range(5):
        expected = tiny.generate(reference, model.processor, clip(seed), options)
        for session in (exported[1], model.session):
            listener = Listener(GraphDecoder(session), model.processor, options, model.processor.language)
            heard = listener.hear(clip(seed), timed=False)
            assert heard is not None
            prompt = model.processor.prompt(listener.language, options.task, timestamps=False)
            assert [model.processor.start, *prompt, *heard.tokens] == expected
            ended.append(heard.ended)
    assert any(ended)


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
    context = PassContext(model, clips(model), PackedCosts())
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


def test_packed_kernels_agree_at_every_site_and_look_up_the_weight_that_they_multiply(
    tmp_path: Path, model: SpeechModel, skeleton: bytes
) -> None:
    require_onnxruntime()
    for bits in WIDTHS:
        plan = plan_at(model, bits, "static", "packed")
        packed = lower(model, plan)
        folder = tmp_path / str(bits)
        folder.mkdir()
        written = write_model(skeleton, packed, folder)
        report = prove(model, packed, written, clip(2), allow_float=False)
        assert report.parity.worst[1] < 1e-3
        kernels = {report.kernels[site.site].split()[0] for site in plan.sites if site.bits}
        assert kernels == {"NBitLinear", "NBitConv1d"}
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
