"""Every family through ExecuTorch: each width at every site, clips of any length."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from operator_libraries import unbuilt_executorch

from bitvox.compiler.frontend.model import SpeechModel
from bitvox.compiler.frontend.session import run_model
from bitvox.compiler.lowering.packed import lower
from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.calibrate import CalibratePass
from bitvox.compiler.passes.plan import WIDTHS, Activations, Kernels, QuantPlan
from bitvox.compiler.passes.quantizer import quantise_module
from bitvox.compiler.passes.start import start_plan
from bitvox.exporters.runner import open_session
from support import PackedCosts, noise_clips
from tiny_families import WALKED, tiny_family

pytest.importorskip("executorch", reason="the extra 'executorch' is not installed")
if missing := unbuilt_executorch():
    pytest.skip(missing, allow_module_level=True)

from bitvox.compiler.frontend.trace import trace
from bitvox.exporters.executorch import exporter
from bitvox.exporters.executorch.audit import DELEGATE
from bitvox.exporters.executorch.framing import Framing, framing
from bitvox.exporters.executorch.lengths import LENGTH_SECONDS, MARGIN_SECONDS, windows
from bitvox.exporters.executorch.session import ExecutorchSession

# Lowering takes seconds a layer: two where layers share positions or a bias, or add up before a norm of the
# next, one for all else.
TWO_LAYERS = ("wav2vec2", "wavlm", "conformer-relative", "parakeet")

# The causal conformer with its adapter, the one with strided convolutions, and the classifier of one window.
FEATURES = ("bert-adapter", "parakeet", "spectrogram")


def family(name: str) -> SpeechModel:
    return tiny_family(name, one_layer=name not in TWO_LAYERS)


@functools.cache
def skeleton(name: str) -> bytes:
    return exporter.build_skeleton(family(name), "packed")


def plan_at(
    model: SpeechModel, bits: int, activations: Activations, kernels: Kernels = "packed"
) -> QuantPlan:
    plan = start_plan(model, PackedCosts(), "executorch", "default", activations, kernels=kernels)
    sites = (site if site.bits is None else site.replace(bits=bits) for site in plan.sites)
    context = PassContext(model, noise_clips(), PackedCosts())
    plan = exporter.settle(model, plan.replace(sites=tuple(sites)))
    return CalibratePass("min-max").run(context, plan)


@pytest.mark.parametrize("name", WALKED)
def test_every_width_agrees_at_every_site(tmp_path: Path, name: str) -> None:
    model = family(name)
    for bits in WIDTHS:
        activations: Activations = "static" if bits % 2 else "dynamic"
        plan = plan_at(model, bits, activations)
        packed = lower(model, plan)
        written = exporter.write_model(skeleton(name), packed, tmp_path)
        for samples in (noise_clips(1, 2500, seed=3)[0], noise_clips(1, 16_000, seed=4)[0]):
            report = exporter.prove(model, packed, written, samples, allow_float=False)
            assert list(report.parity.difference) == [site.name for site in model.sites]
            assert report.parity.worst[1] < 1e-3
        for site, entry in zip(model.sites, plan.sites, strict=True):
            kernel = f"bitvox::{site.operator}" if entry.bits else "bitvox::wave_conv1d"
            assert report.kernels[site.name] == kernel


@pytest.mark.parametrize("name", WALKED)
def test_logits_are_those_of_the_quantised_model_at_any_length(tmp_path: Path, name: str) -> None:
    """What is between the sites: attention, positions, gates, norms."""
    model = family(name)
    plan = plan_at(model, 8, "dynamic")
    exporter.write_model(skeleton(name), lower(model, plan), tmp_path)
    session, quantised = open_session("executorch", tmp_path, 1), quantise_module(model, plan)
    least = model.processor.minimum_samples
    for length in (least, least + 1, 3 * least - 1, 4001, 16_000, LENGTH_SECONDS[0] * 16_000 + 1):
        samples = np.random.default_rng(length).standard_normal(length).astype(np.float32)
        features = model.processor.features(samples)
        expected, found = _logits(quantised, features), run_model(session, features)
        assert found.shape == expected.shape
        error = _difference(found, expected)
        # A code next to a rounding boundary falls to the other side, and attention hands that on: no more
        # than the model makes of its own input when that changes in the fifth digit.
        assert error < 1e-4 or error < max(
            _difference(_logits(quantised, _changed(features, seed)), expected) for seed in range(8)
        )


def _logits(module: torch.nn.Module, features: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        logits: np.ndarray = module(torch.from_numpy(features)[None])[0].numpy()
    return logits


def _changed(features: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(features.shape)
    return (features + 1e-5 * features.std() * noise).astype(np.float32)


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Mean of the absolute difference over that of what was expected."""
    return float(np.abs(found - expected).mean() / np.abs(expected).mean())


@pytest.mark.slow
@pytest.mark.parametrize("name", FEATURES)
def test_full_precision_is_the_model_at_any_length(tmp_path: Path, name: str) -> None:
    model = tiny_family(name, one_layer=True)
    exporter.export_full_precision(model, tmp_path)
    session = open_session("executorch", tmp_path, 1)
    assert isinstance(session, ExecutorchSession)
    least = model.processor.minimum_samples
    limit = LENGTH_SECONDS[0] * model.processor.sampling_rate
    for length in (least, least + 1, 3 * least - 1, 4001, 16_000, limit, limit + 1000):
        samples = np.random.default_rng(length).standard_normal(length).astype(np.float32)
        expected = model.logits(samples)
        logits = run_model(session, model.processor.features(samples))
        np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())
    seconds = exporter.length_seconds(model)
    assert seconds == (() if model.family == "classifier" else LENGTH_SECONDS)
    assert len(session.methods) == max(1, len(seconds))
    if seconds:
        _in_windows(session, model.processor.features(noise_clips(1, 150_000)[0]))


def _in_windows(session: ExecutorchSession, features: np.ndarray) -> None:
    """A clip beyond the longest method: frames come from the window in which they have context."""
    least = min(session.methods)
    short = dataclasses.replace(session, methods={least: session.methods[least]})
    found, whole = short.run(features), session.run(features)
    assert found.shape == whole.shape
    margin = MARGIN_SECONDS * session.rate
    cut = list(windows(len(features), least, margin, session.minimum, session.per_frame))
    assert len(cut) > 2
    kept = 0
    for window in cut:
        alone = session.run(features[window.start : window.stop])[window.first : window.last]
        np.testing.assert_array_equal(found[kept : kept + len(alone)], alone)
        kept += len(alone)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("wav2vec2", Framing(16_000, 40, 80)),
        ("bert", Framing(50, 1, 1)),
        ("bert-adapter", Framing(50, 1, 2)),
        ("parakeet", Framing(100, 1, 4)),
        ("parakeet-bare", Framing(100, 1, 8)),
    ],
)
def test_frames_are_where_the_trace_puts_them(name: str, expected: Framing) -> None:
    model = tiny_family(name)
    found = framing(model, trace(model, model.graphs[0]))
    assert found == expected
    for rows in range(2 * found.per_frame + 3, 5 * found.per_frame, found.per_frame + 1):
        port = model.graphs[0].inputs[0].example()
        if rows >= found.minimum:
            logits = model.module(port[:, :1].expand(1, rows, *port.shape[2:]).contiguous())
            assert logits.shape[1] == (rows - found.minimum) // found.per_frame + 1


@pytest.mark.slow
def test_stock_kernels_take_features_too(tmp_path: Path) -> None:
    model = tiny_family("parakeet", one_layer=True)
    packed = lower(model, plan_at(model, 4, "static", "stock"))
    written = exporter.write_model(exporter.traced_skeleton(model), packed, tmp_path)
    assert not any(name.startswith(("bitvox", "quantized")) for name in written.operators)
    report = exporter.prove(model, packed, written, noise_clips()[0], allow_float=False)
    assert set(report.kernels.values()) == {DELEGATE}
    assert report.parity.worst[1] < 1e-3
