"""Every family through ONNX Runtime, stock and packed: each width at every site, two lengths of audio."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
from operator_libraries import require_onnxruntime

from bitvox.compiler.frontend.session import run_model
from bitvox.compiler.lowering.packed import full_precision, lower
from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.calibrate import CalibratePass
from bitvox.compiler.passes.plan import WIDTHS, Activations, Kernels, QuantPlan
from bitvox.compiler.passes.start import start_plan
from bitvox.exporters.onnx.build import write_model
from bitvox.exporters.onnx.exporter import prove
from bitvox.exporters.onnx.session import open_session
from bitvox.exporters.onnx.skeleton import build_skeleton
from support import PackedCosts, noise_clips
from tiny_families import WALKED, tiny_family

KERNELS = {
    "static": {"MatMulIntegerToFloat", "QLinearConv"},
    "dynamic": {"DynamicQuantizeMatMul", "MatMulIntegerToFloat"},
}


@functools.cache
def skeleton(name: str) -> bytes:
    return build_skeleton(tiny_family(name))


def plan_at(name: str, bits: int, activations: Activations, kernels: Kernels = "stock") -> QuantPlan:
    model = tiny_family(name)
    plan = start_plan(model, PackedCosts(), "onnx", "default", activations, kernels)
    sites = (site if site.bits is None else site.replace(bits=bits) for site in plan.sites)
    context = PassContext(model, noise_clips(), PackedCosts())
    return CalibratePass("min-max").run(context, plan.replace(sites=tuple(sites)))


@pytest.mark.parametrize("name", WALKED)
def test_full_precision_is_the_model_at_any_length(tmp_path: Path, name: str) -> None:
    model = tiny_family(name)
    write_model(skeleton(name), full_precision(model), tmp_path)
    session = open_session(tmp_path, num_threads=1)
    least = model.processor.minimum_samples
    for length in (least, least + 1, 3 * least - 1, 3 * least, 4001, 16000):
        samples = np.random.default_rng(length).standard_normal(length).astype(np.float32)
        expected = model.logits(samples)
        logits = run_model(session, model.processor.features(samples))
        np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", WALKED)
@pytest.mark.parametrize("activations", ["static", "dynamic"])
def test_every_width_agrees_at_every_site(tmp_path: Path, name: str, activations: Activations) -> None:
    model = tiny_family(name)
    for bits in WIDTHS:
        plan = plan_at(name, bits, activations)
        packed = lower(model, plan)
        folder = tmp_path / str(bits)
        folder.mkdir()
        written = write_model(skeleton(name), packed, folder)
        for samples in (noise_clips(1, 2500, seed=3)[0], noise_clips(1, 16_000, seed=4)[0]):
            report = prove(model, packed, written, samples, allow_float=False)
            assert list(report.parity.difference) == [site.name for site in model.sites]
            assert report.parity.worst[1] < 1e-3
        integer = [site.site for site in plan.sites if site.bits and site.activations != "float"]
        assert {report.kernels[site] for site in integer} <= KERNELS[activations]
        linear = {site.name for site in model.sites if site.operator == "linear"}
        assert set(integer) == linear if activations == "dynamic" else len(integer) >= len(model.sites) - 1


@pytest.mark.parametrize("name", WALKED)
def test_packed_kernels_agree_at_every_width_and_site(tmp_path: Path, name: str) -> None:
    require_onnxruntime()
    model = tiny_family(name)
    for bits in WIDTHS:
        plan = plan_at(name, bits, "dynamic" if bits % 2 else "static", "packed")
        packed = lower(model, plan)
        folder = tmp_path / str(bits)
        folder.mkdir()
        written = write_model(skeleton(name), packed, folder)
        report = prove(model, packed, written, noise_clips(1, 4001, seed=bits)[0], allow_float=False)
        assert list(report.parity.difference) == [site.name for site in model.sites]
        assert report.parity.worst[1] < 1e-3
        kernels = {report.kernels[site.site].split()[0] for site in plan.sites if site.bits}
        operators = {site.operator for site in model.sites if site.role != "input_conv"}
        assert kernels == {{"linear": "NBitLinear", "conv1d": "NBitConv1d"}[name] for name in operators}
