"""Fitted convolution ranges move the output less than min-max ranges do, and touch nothing else."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.calibrate import CalibratePass
from bitvox.compiler.passes.conv_ranges import FitConvRangesPass
from bitvox.compiler.passes.plan import QuantPlan
from bitvox.compiler.passes.quantizer import quantise_module
from bitvox.compiler.passes.start import start_plan
from support import PackedCosts, reference_model


def bursts(seed: int) -> np.ndarray:
    """A loud and a quiet half: what a single grid for both serves badly."""
    noise = np.random.default_rng(seed).standard_normal(24000).astype(np.float32)
    envelope = np.where(np.arange(noise.size) < noise.size // 8, 1.0, 0.02)
    return (0.1 * noise * envelope).astype(np.float32)


def divergence(context: PassContext, plan: QuantPlan, samples: np.ndarray) -> float:
    x = torch.from_numpy(context.model.processor.features(samples))[None]
    with torch.inference_mode():
        expected = functional.log_softmax(context.model.module(x), dim=-1)
        found = functional.log_softmax(quantise_module(context.model, plan)(x), dim=-1)
    return float(functional.kl_div(found, expected, reduction="sum", log_target=True)) / expected.shape[1]


def test_ranges_fit_to_the_output_beat_min_max_on_other_audio() -> None:
    model = reference_model()
    context = PassContext(model, (bursts(0), bursts(1)), PackedCosts())
    calibrated = CalibratePass("min-max").run(context, start_plan(model, PackedCosts(), "onnx"))
    fitted = FitConvRangesPass().run(context, calibrated)

    assert divergence(context, fitted, bursts(2)) < 0.5 * divergence(context, calibrated, bursts(2))
    for before, after in zip(calibrated.sites, fitted.sites, strict=True):
        if model.site(before.site).operator == "linear":
            assert before == after
        elif before.output_range is not None:
            assert after.output_range is not None
            assert before.output_range.low <= after.output_range.low
            assert after.bits == before.bits


def test_a_plan_without_static_convolutions_is_left_alone() -> None:
    model = reference_model()
    plan = start_plan(model, PackedCosts(), "onnx", activations="dynamic")
    assert FitConvRangesPass().run(PassContext(model, (bursts(0),), PackedCosts()), plan) is plan
