import dataclasses

import numpy as np
import pytest
import torch

from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.calibrate import CalibratePass
from bitvox.compiler.passes.observers import FrameSampler, RangeObserver, columns, output_rows, watching
from bitvox.compiler.passes.plan import QuantPlan, Range
from bitvox.compiler.passes.start import start_plan
from bitvox.compiler.passes.verify import verify_plan
from bitvox.compiler.passes.weight_search import (
    FACTORS,
    SiteSample,
    cosine_distance,
    gradient_weighted_error,
    search_steps,
)
from bitvox.errors import InputError
from support import tiny_context


def _plan(
    context: PassContext, bits: int = 3, tier: str = "default", activations: str = "static"
) -> QuantPlan:
    plan = start_plan(context.model, context.costs, "onnx", tier, activations)
    sites = tuple(entry if entry.bits is None else entry.replace(bits=bits) for entry in plan.sites)
    return plan.replace(sites=sites, budget=10**9)


@torch.inference_mode()
def test_min_max_ranges_are_the_extremes_of_all_clips() -> None:
    context = tiny_context()
    plan = CalibratePass().run(context, _plan(context))
    seen: dict[str, list[torch.Tensor]] = {}

    def keep(site, x, y) -> None:
        seen.setdefault(site.name, []).append(torch.stack([x.min(), x.max(), y.min(), y.max()]))

    with watching(context.model, context.model.sites, keep):
        for clip in context.clips:
            context.model.logits(clip)
    for site, entry in zip(context.model.sites, plan.sites, strict=True):
        if entry.bits is None:
            assert entry.input_range is None
            continue
        extremes = torch.stack(seen[site.name])
        assert entry.input_range is not None
        assert entry.input_range.low == pytest.approx(min(0.0, float(extremes[:, 0].min())), rel=1e-6)
        assert entry.input_range.high == pytest.approx(max(0.0, float(extremes[:, 1].max())), rel=1e-6)
        assert (entry.output_range is not None) == (site.operator == "conv1d")
        assert entry.clip == 1.0
    verify_plan(context.model, plan, ("ranges",))


@pytest.mark.parametrize("method", ["cosine", "hessian"])
@pytest.mark.parametrize("tier", ["default", "paper"])
def test_searches_set_every_static_site_and_are_deterministic(method: str, tier: str) -> None:
    context = tiny_context(conv_bias=True)
    plan = CalibratePass(method).run(context, _plan(context, tier=tier))
    verify_plan(context.model, plan, ("ranges",))
    assert plan == CalibratePass(method).run(context, _plan(context, tier=tier))
    assert any(entry.clip != 1.0 for entry in plan.sites)
    for group in context.model.share_groups():
        assert len({plan.site(site.name).input_range for site in group}) == 1


@pytest.mark.parametrize("activations", ["dynamic", "float"])
def test_without_static_activations_only_weights_are_searched(activations: str) -> None:
    context = tiny_context()
    plan = CalibratePass("cosine").run(context, _plan(context, activations=activations))
    assert any(entry.clip != 1.0 for entry in plan.sites)
    assert all(entry.input_range is None and entry.output_range is None for entry in plan.sites)


def test_min_max_without_static_sites_needs_no_clip() -> None:
    context = dataclasses.replace(tiny_context(), clips=())
    plan = CalibratePass().run(context, _plan(context, activations="dynamic"))
    assert all(entry.input_range is None for entry in plan.sites)
    with pytest.raises(InputError, match="no clip"):
        CalibratePass().run(context, _plan(context))


@pytest.mark.parametrize("objective", [cosine_distance, gradient_weighted_error])
def test_a_search_is_never_worse_than_min_max(objective) -> None:
    context = tiny_context()
    site = context.model.site("wav2vec2.encoder.layers.0.feed_forward.intermediate_dense")
    module = context.model.site_module(site)
    inputs = torch.randn(64, 1, site.shape[1])
    inputs[..., -1] *= 8
    sample = SiteSample(site, module.weight, module.bias, inputs, torch.randn(64, site.channels))
    start = (
        _plan(context).site(site.name).replace(input_range=Range(float(inputs.min()), float(inputs.max())))
    )
    found = search_steps([sample], [start], objective)

    def error(clip: float, span: Range | None) -> float:
        from bitvox.compiler.passes.quantizer import dequantised_weight, fake_quantise_activation

        assert span is not None
        weight = dequantised_weight(sample.weight, start.replace(clip=clip))
        got = sample.outputs(fake_quantise_activation(inputs, span), weight)
        return objective(sample, sample.outputs(inputs, sample.weight), got)

    assert error(found.clips[0], found.input_range) < error(1.0, start.input_range)
    assert found.clips[0] in FACTORS


def test_the_factors_are_the_published_hundred() -> None:
    assert len(FACTORS) == 100
    assert (FACTORS[0], FACTORS[-1]) == (0.01, 1.1881)


def test_hessian_gradients_are_not_zero() -> None:
    context = tiny_context()
    quantised = [site for site in context.model.sites if site.role != "input_conv"]
    kept = CalibratePass("hessian")._observe(context, _plan(context))
    for site in quantised:
        gradient = kept.sample(context, site).gradient
        assert gradient is not None
        assert gradient.abs().max() > 0
        assert torch.isfinite(gradient).all()
    assert all(parameter.grad is None for parameter in context.model.module.parameters())


@torch.inference_mode()
def test_sampled_columns_reproduce_the_sites_own_outputs() -> None:
    context = tiny_context(conv_bias=True)
    sampler = FrameSampler(7, len(context.clips))
    checked = []

    def compare(site, x, y) -> None:
        rows = output_rows(site, y)
        positions = sampler.positions(1, rows.shape[0])
        module = context.model.site_module(site)
        inputs = columns(site, x, positions)
        sample = SiteSample(site, module.weight, module.bias, inputs)
        torch.testing.assert_close(
            sample.outputs(inputs, module.weight), rows[positions], rtol=1e-4, atol=1e-5
        )
        checked.append(site)

    with watching(context.model, context.model.sites, compare):
        context.model.logits(context.clips[1])
    assert len(checked) == len(context.model.sites)


def test_the_sampler_spreads_a_fixed_number_of_frames() -> None:
    for clips in (1, 3, 32, 300):
        sampler = FrameSampler(256, clips)
        kept = [sampler.positions(clip, 499) for clip in range(clips)]
        assert sum(len(positions) for positions in kept) == 256
        for positions in kept:
            assert len(set(positions.tolist())) == len(positions)
            assert not len(positions) or (positions.min() >= 0 and positions.max() < 499)
    assert len(FrameSampler(256, 1).positions(0, 10)) == 10


def test_a_silent_input_gets_a_safe_range() -> None:
    observer = RangeObserver()
    observer.update(torch.zeros(3, 4))
    assert observer.span() == Range(-1.0, 1.0)


def test_silent_clips_calibrate() -> None:
    context = dataclasses.replace(tiny_context(), clips=(np.zeros(4000, np.float32),))
    for method in ("min-max", "cosine", "hessian"):
        plan = CalibratePass(method).run(context, _plan(context))
        verify_plan(context.model, plan, ("ranges",))


def test_an_unknown_method_is_one_line() -> None:
    with pytest.raises(InputError, match="calibration mse: unknown; use one of min-max, cosine, hessian"):
        CalibratePass("mse")
