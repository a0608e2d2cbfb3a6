"""`--kernels packed`: from a plan to a bundle whose sites are nodes of the operator library."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
from operator_libraries import require_onnxruntime
from typer.testing import CliRunner

from bitvox.cli import app
from bitvox.compiler.lowering.packed import lower
from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.calibrate import CalibratePass
from bitvox.compiler.passes.conv_ranges import FitConvRangesPass
from bitvox.compiler.passes.plan import WIDTHS, Activations, QuantPlan, Tier
from bitvox.compiler.passes.start import start_plan
from bitvox.compiler.passes.verify import verify_plan
from bitvox.errors import InputError
from bitvox.exporters.onnx.build import WrittenModel, write_model
from bitvox.exporters.onnx.costs import OnnxCosts
from bitvox.exporters.onnx.exporter import prove
from bitvox.exporters.onnx.model_file import imported_domains
from bitvox.exporters.onnx.session import open_session
from bitvox.exporters.onnx.skeleton import build_skeleton
from bitvox.exporters.verify import verify
from bitvox.runtime_kernels.adapters.onnxruntime.library import library_isa
from support import PackedCosts, noise_clips, tiny_model, write_tiny_checkpoint


@pytest.fixture(autouse=True)
def library() -> None:
    require_onnxruntime()


@functools.cache
def skeleton(conv_bias: bool, large: bool = False) -> bytes:
    return build_skeleton(tiny_model(conv_bias, large))


def plan_at(
    bits: int,
    activations: Activations = "static",
    tier: Tier = "default",
    conv_bias: bool = False,
    large: bool = False,
) -> QuantPlan:
    model = tiny_model(conv_bias, large)
    plan = start_plan(model, PackedCosts(), "onnx", tier, activations, "packed")
    sites = (s if s.bits is None else s.replace(bits=bits) for s in plan.sites)
    context = PassContext(model, noise_clips(), PackedCosts())
    plan = CalibratePass("min-max").run(context, plan.replace(sites=tuple(sites)))
    verify_plan(model, plan, ["ranges"])
    return FitConvRangesPass().run(context, plan)


def write(plan: QuantPlan, folder: Path, conv_bias: bool = False, large: bool = False) -> WrittenModel:
    folder.mkdir(exist_ok=True)
    return write_model(skeleton(conv_bias, large), lower(tiny_model(conv_bias, large), plan), folder)


@pytest.mark.parametrize("activations", ["static", "dynamic"])
@pytest.mark.parametrize("bits", WIDTHS)
def test_every_site_reaches_the_library_and_agrees(
    tmp_path: Path, bits: int, activations: Activations
) -> None:
    """A clip of many runs of frames; linears, strided convolutions, and one in groups."""
    model, plan = tiny_model(), plan_at(bits, activations)
    written = write(plan, tmp_path)
    (clip,) = noise_clips(1, samples=30_000)
    report = prove(model, lower(model, plan), written, clip, allow_float=False)
    kernels = {"linear": f"NBitLinear {library_isa()}", "conv1d": f"NBitConv1d {library_isa()}"}
    for site in model.sites[1:]:
        assert report.kernels[site.name] == kernels[site.operator]
    assert report.kernels[model.sites[0].name] == "Conv"  # the raw waveform, in full precision by policy
    assert report.parity.worst[1] < 1e-5


@pytest.mark.parametrize("tier", ["default", "paper"])
@pytest.mark.parametrize("activations", ["static", "dynamic", "float"])
def test_other_forms_agree_beside_it(tmp_path: Path, activations: Activations, tier: Tier) -> None:
    """Biases of convolutions, one scale a layer, sites in full precision, weights with float activations."""
    model, plan = tiny_model(conv_bias=True), plan_at(5, activations, tier, conv_bias=True)
    written = write(plan, tmp_path, conv_bias=True)
    report = prove(model, lower(model, plan), written, noise_clips()[1], allow_float=False)
    assert report.parity.worst[1] < 1e-5
    assert imported_domains(written.graphs[0].file) == {"", "bitvox"}


def test_the_large_structure_goes_the_same_road(tmp_path: Path) -> None:
    model, plan = tiny_model(large=True), plan_at(3, large=True)
    written = write(plan, tmp_path, large=True)
    report = prove(model, lower(model, plan), written, noise_clips()[0], allow_float=False)
    assert report.parity.worst[1] < 1e-5


def test_a_gelu_is_fused_where_it_alone_reads_a_site(tmp_path: Path) -> None:
    written = write(plan_at(4), tmp_path)
    nodes = onnx.load(written.graphs[0].file, load_external_data=False).graph.node
    layers = [node for node in nodes if node.op_type.startswith("NBit")]
    fused = [node for node in layers if _attribute(node, "activation") == b"gelu"]
    gelus = [node for node in nodes if node.op_type == "Gelu"]
    direct = [site for site in tiny_model().sites if site.activation == "gelu"]
    feed_forward = [site for site in tiny_model().sites if site.name.endswith("intermediate_dense")]
    assert len(fused) == len([site for site in direct if site.role == "conv"]) + len(feed_forward)
    assert len(gelus) == 1  # after the positional convolution, whose output is cut to length first
    (norm,) = (node for node in nodes if node.op_type == "InstanceNorm1d")
    assert _attribute(norm, "activation") == b"gelu"
    assert not [node for node in nodes if node.op_type in ("InstanceNormalization", "Shape")]


def test_weights_start_where_the_kernels_can_read_them(tmp_path: Path) -> None:
    written = write(plan_at(3), tmp_path)
    graph = onnx.load(written.graphs[0].file, load_external_data=False).graph
    weights = {node.input[1] for node in graph.node if node.op_type.startswith("NBit")}
    offsets = [
        int(next(entry.value for entry in tensor.external_data if entry.key == "offset"))
        for tensor in graph.initializer
        if tensor.name in weights
    ]
    assert len(offsets) == len(tiny_model().sites) - 1
    assert all(offset % 64 == 0 for offset in offsets)


@pytest.mark.parametrize("activations", ["static", "dynamic", "float"])
def test_predicted_differences_are_the_real_ones(tmp_path: Path, activations: Activations) -> None:
    model = tiny_model()
    costs = OnnxCosts(model, skeleton(False), "packed", "packed")
    misses = []
    for bits in WIDTHS:
        plan = plan_at(bits, activations)
        written = write(plan, tmp_path / str(bits))
        predicted = costs.fixed + sum(
            costs.site(site, entry.bits, entry.granularity, entry.activations)
            for site, entry in zip(model.sites, plan.sites, strict=True)
        )
        misses.append(sum(path.stat().st_size for path in written.files) - predicted)
    tables = 3600 if activations == "float" else 0
    assert max(misses) - min(misses) < tables + 300


def test_calibration_does_not_change_the_size(tmp_path: Path) -> None:
    """Budgets are met before ranges are known."""
    plan = plan_at(3)
    sizes = set()
    for index, zero_point in enumerate((0, 1, 127, 128, 200, 255)):
        spans = (s.replace(input_range=_span(zero_point)) if s.input_range else s for s in plan.sites)
        written = write(plan.replace(sites=tuple(spans)), tmp_path / str(index))
        sizes.add(sum(path.stat().st_size for path in written.files))
    assert len(sizes) == 1


def test_plans_that_contradict_themselves_are_refused() -> None:
    model, plan = tiny_model(), plan_at(4)
    with pytest.raises(InputError, match="storage standard: packed kernels do not read it"):
        verify_plan(model, plan.replace(storage="standard"))
    dynamic = plan_at(4, "dynamic")
    with pytest.raises(InputError, match="static or float with stock kernels, not dynamic"):
        verify_plan(model, dynamic.replace(kernels="stock"))


def test_a_damaged_weight_is_named_by_whoever_loads_it(tmp_path: Path) -> None:
    written = write(plan_at(3), tmp_path)
    graph = onnx.load(written.graphs[0].file, load_external_data=False).graph
    tensor = next(tensor for tensor in graph.initializer if tensor.name == "w2")
    offset = int(next(entry.value for entry in tensor.external_data if entry.key == "offset"))
    content = bytearray(written.data.read_bytes())
    content[offset] ^= 1
    written.data.write_bytes(content)
    with pytest.raises(InputError, match="bitvox:NBitConv1d with weight 'w2': the buffer does not hold"):
        open_session(tmp_path, 1)


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voice")
    generator = np.random.default_rng(0)
    for index in range(4):
        samples = 0.1 * generator.standard_normal(6000 + 500 * index)
        soundfile.write(folder / f"{index}.wav", samples.astype(np.float32), 16000)
    return folder


def bitvox(*words: object) -> dict[str, Any]:
    result = CliRunner().invoke(app, [*map(str, words), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


@pytest.mark.parametrize("activations", ["static", "dynamic"])
def test_a_bundle_is_under_its_budget_and_says_what_it_needs(
    tmp_path: Path, voice: Path, activations: Activations, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint")
    bundle = tmp_path / "bundle"
    words = ("--audio", voice, "--kernels", "packed", "--activations", activations)
    widest = bitvox("compile", checkpoint, *words, "--budget", "1MB", "--out", bundle)
    assert widest["bytes"] <= widest["plan"]["fixed_bytes"] + sum(
        site["stored_bytes"] for site in widest["plan"]["sites"]
    )
    budget = widest["bytes"] - 6000
    compiled = bitvox("compile", checkpoint, *words, "--budget", budget, "--out", bundle)
    assert sum(path.stat().st_size for path in bundle.iterdir()) == compiled["bytes"] <= budget
    assert compiled["average_bits"] < widest["average_bits"] == 8
    assert (
        sum(kernel.startswith("NBit") for kernel in compiled["kernels"].values())
        == len(compiled["kernels"]) - 1
    )
    assert compiled["plan"]["kernels"] == "packed"

    manifest = json.loads((bundle / "bitvox.json").read_text())
    assert {"bitvox:NBitLinear", "bitvox:NBitConv1d"} <= set(manifest["operators"])
    assert bitvox("verify", bundle)["findings"] == []
    assert len(bitvox("transcribe", bundle, voice)["transcripts"]) == 4
    assert bitvox("inspect", bundle)["total"] == compiled["bytes"]

    monkeypatch.setenv("BITVOX_ONNXRUNTIME_LIBRARY", str(tmp_path / "nowhere.so"))
    assert [line for line in verify(bundle) if "NBitLinear" in line] != []
    result = CliRunner().invoke(app, ["transcribe", str(bundle), str(voice)])
    assert isinstance(result.exception, InputError)
    assert "nowhere.so: missing; packed kernels need" in str(result.exception)
    result = CliRunner().invoke(app, ["compile", str(checkpoint), *map(str, words), "--budget", "1MB"])
    assert result.exit_code != 0


def _attribute(node: onnx.NodeProto, name: str) -> Any:
    return onnx.helper.get_attribute_value(next(a for a in node.attribute if a.name == name))


def _span(zero_point: int) -> Any:
    from bitvox.compiler.passes.plan import Range

    return Range(-0.01 * zero_point, 0.01 * (255 - zero_point) or 1e-9)
