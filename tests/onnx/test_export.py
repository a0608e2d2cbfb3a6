"""Every width and every form, through stock ONNX Runtime: the kernel that was meant, and the same numbers."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from bitvox.compiler.lowering.header import HEADER_BYTES, decode_header
from bitvox.compiler.lowering.packed import PackedTensor, full_precision, lower
from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.calibrate import CalibratePass
from bitvox.compiler.passes.conv_ranges import FitConvRangesPass
from bitvox.compiler.passes.plan import WIDTHS, Activations, QuantPlan, Tier
from bitvox.compiler.passes.start import start_plan
from bitvox.errors import RequestError
from bitvox.exporters.onnx.audit import check_kernels, kernels_reached
from bitvox.exporters.onnx.build import WrittenModel, write_model
from bitvox.exporters.onnx.costs import OnnxCosts
from bitvox.exporters.onnx.exporter import export_full_precision, prove
from bitvox.exporters.onnx.skeleton import build_skeleton
from bitvox.exporters.onnx.standard import settle
from support import PackedCosts, noise_clips, tiny_model

INTEGER = {"static": {"linear": "MatMulIntegerToFloat", "conv1d": "QLinearConv"}}


@functools.cache
def skeleton(conv_bias: bool) -> bytes:
    return build_skeleton(tiny_model(conv_bias))


def plan_at(
    bits: int, activations: Activations = "static", tier: Tier = "default", conv_bias: bool = False
) -> QuantPlan:
    model = tiny_model(conv_bias)
    plan = start_plan(model, PackedCosts(), "onnx", tier, activations)
    sites = (s if s.bits is None else s.replace(bits=bits) for s in plan.sites)
    context = PassContext(model, noise_clips(), PackedCosts())
    return CalibratePass("min-max").run(context, plan.replace(sites=tuple(sites)))


def write(plan: QuantPlan, folder: Path, conv_bias: bool = False) -> WrittenModel:
    return write_model(skeleton(conv_bias), lower(tiny_model(conv_bias), plan), folder)


@pytest.mark.parametrize("bits", WIDTHS)
def test_static_sites_reach_integer_kernels_and_agree(tmp_path: Path, bits: int) -> None:
    model, plan = tiny_model(), plan_at(bits)
    written = write(plan, tmp_path)
    report = prove(model, lower(model, plan), written, noise_clips()[0], allow_float=False)
    for site in model.sites:
        if plan.site(site.name).bits is not None:
            assert report.kernels[site.name] == INTEGER["static"][site.operator]
    assert report.parity.worst[1] < 1e-3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]


@pytest.mark.parametrize("activations", ["static", "dynamic", "float"])
@pytest.mark.parametrize("tier", ["default", "paper"])
@pytest.mark.parametrize("conv_bias", [False, True])
def test_every_form_agrees(tmp_path: Path, activations: Activations, tier: Tier, conv_bias: bool) -> None:
    model, plan = tiny_model(conv_bias), plan_at(5, activations, tier, conv_bias)
    written = write(plan, tmp_path, conv_bias)
    report = prove(model, lower(model, plan), written, noise_clips()[1], allow_float=False)
    assert len(report.parity.difference) == len(model.sites)
    dynamic = {"DynamicQuantizeMatMul", "MatMulIntegerToFloat"}
    linear = {report.kernels[s.name] for s in model.sites if s.role == "linear"}
    assert (
        linear <= {"static": {"MatMulIntegerToFloat"}, "dynamic": dynamic, "float": {"MatMul"}}[activations]
    )


@pytest.mark.parametrize(
    ("bits", "kernel"), [(2, "MatMulNBits"), (3, "MatMulNBits"), (6, "MatMulIntegerToFloat")]
)
def test_standard_storage_has_types_that_tools_read(tmp_path: Path, bits: int, kernel: str) -> None:
    model = tiny_model()
    plan = settle(model, plan_at(bits).replace(storage="standard"))
    written = write(plan, tmp_path)
    report = prove(model, lower(model, plan), written, noise_clips()[0], allow_float=False)
    assert {report.kernels[site.name] for site in model.sites if site.role == "linear"} == {kernel}
    assert {report.kernels[site.name] for site in model.sites if site.role == "conv"} == {"QLinearConv"}
    types = {
        t.data_type for t in onnx.load(written.graphs[0].file, load_external_data=False).graph.initializer
    }
    wanted = {2: onnx.TensorProto.INT2, 3: onnx.TensorProto.INT4, 6: onnx.TensorProto.INT8}[bits]
    assert wanted in types


def test_the_large_structure_goes_the_same_road(tmp_path: Path) -> None:
    """Layer norms in the extractor, pre-norm encoder: convolutions whose output no GELU reads directly."""
    model = tiny_model(large=True)
    assert {site.activation for site in model.sites if site.role == "conv"} == {None}
    context = PassContext(model, noise_clips(), PackedCosts())
    plan = FitConvRangesPass().run(
        context, CalibratePass("min-max").run(context, start_plan(model, PackedCosts(), "onnx"))
    )
    packed = lower(model, plan)
    written = write_model(build_skeleton(model), packed, tmp_path)
    report = prove(model, packed, written, noise_clips()[0], allow_float=False)
    assert report.parity.worst[1] < 1e-3


def test_full_precision_export_is_the_model_at_any_length(tmp_path: Path) -> None:
    model = tiny_model()
    path = export_full_precision(model, tmp_path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for length in (model.processor.minimum_samples, 41, 119, 120, 4001, 16000):
        samples = np.random.default_rng(length).standard_normal(length).astype(np.float32)
        (logits,) = session.run(None, {"samples": model.processor.features(samples)[None]})
        np.testing.assert_allclose(logits[0], model.logits(samples), atol=1e-4)


def test_the_same_plan_gives_the_same_bytes(tmp_path: Path) -> None:
    plan = plan_at(3)
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        write(plan, folder)
    for name in ("model.onnx", "model.onnx.data"):
        first, second = ((folder / name).read_bytes() for folder in folders)
        assert first == second
    assert build_skeleton(tiny_model()) == skeleton(False)


def test_the_data_file_describes_itself(tmp_path: Path) -> None:
    model, plan = tiny_model(), plan_at(6)
    buffer = write(plan, tmp_path).data.read_bytes()
    position, headers = 0, []
    for stored in lower(model, plan).sites:
        if not isinstance(stored.weight, PackedTensor):
            position += stored.weight.nbytes
            continue
        header = decode_header(buffer[position : position + HEADER_BYTES])
        position += HEADER_BYTES + header.planes_bytes + header.scales_bytes
        headers.append(header)
        assert header.shape == stored.site.shape
    assert [header.bits for header in headers] == [6] * (len(model.sites) - 1)


@pytest.mark.parametrize("activations", ["static", "dynamic", "float"])
def test_predicted_differences_are_the_real_ones(tmp_path: Path, activations: Activations) -> None:
    """Costs are used to compare widths, so what counts is the bytes from one width to the next."""
    model = tiny_model()
    costs = OnnxCosts(model, skeleton(False), "packed", "stock")
    misses = []
    for bits in WIDTHS:
        plan = plan_at(bits, activations)
        folder = tmp_path / str(bits)
        folder.mkdir()
        written = write(plan, folder)
        real = written.graphs[0].file.stat().st_size + written.data.stat().st_size
        predicted = costs.fixed + sum(
            costs.site(site, entry.bits, entry.granularity, entry.activations)
            for site, entry in zip(model.sites, plan.sites, strict=True)
        )
        misses.append(real - predicted)
    tables = 3600  # of the width with the most planes
    assert max(misses) - min(misses) < tables + 300


def test_a_float_kernel_is_named_and_refused(tmp_path: Path) -> None:
    """Without an 8-bit output a convolution keeps its small weight and runs in float: what the audit is
    for."""
    model, plan = tiny_model(), plan_at(4)
    written = write(plan, tmp_path)
    proto = onnx.load(written.graphs[0].file, load_external_data=False)
    conv = [node for node in proto.graph.node if node.op_type == "Conv"][1]
    quantise = next(node for node in proto.graph.node if conv.output[0] in node.input)
    dequantise = next(node for node in proto.graph.node if quantise.output[0] in node.input)
    for node in proto.graph.node:
        node.input[:] = [conv.output[0] if name == dequantise.output[0] else name for name in node.input]
    written.graphs[0].file.write_bytes(proto.SerializeToString())

    packed = lower(model, plan)
    with pytest.raises(RequestError, match=rf"site '{model.sites[1].name}' runs in float"):
        prove(model, packed, written, noise_clips()[0], allow_float=False)
    reached = kernels_reached(written.graphs[0].file, written.graphs[0].sites)
    assert check_kernels(reached, plan) == [model.sites[1].name]


def test_the_first_site_that_differs_is_named(tmp_path: Path) -> None:
    model, plan = tiny_model(), plan_at(4)
    written = write(plan, tmp_path)
    third = [s for s in plan.sites if s.bits is not None][2]
    other = plan.replace(sites=tuple(s.replace(clip=0.5) if s is third else s for s in plan.sites))
    with pytest.raises(RequestError, match=f"site '{third.site}': its output in the runtime differs"):
        prove(model, lower(model, other), written, noise_clips()[0], allow_float=False)


def test_full_precision_sites_are_all_there() -> None:
    assert len(full_precision(tiny_model()).sites) == len(tiny_model().sites)
