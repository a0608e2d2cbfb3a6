import copy
import dataclasses
import functools
from statistics import median

import pytest
import torch

from bitvox.compiler.passes import input_moments, measure_costs
from bitvox.compiler.passes.allocate import bytes_at_width
from bitvox.compiler.passes.allocate_exact import AllocateExactPass
from bitvox.compiler.passes.base import PassContext, Sequential
from bitvox.compiler.passes.divergence import Divergence
from bitvox.compiler.passes.group_roundings import put_weights, round_all
from bitvox.compiler.passes.input_moments import gather_moments
from bitvox.compiler.passes.measure_costs import BLANK_WEIGHT, SECONDS, MeasureCostsPass
from bitvox.compiler.passes.plan import WIDTHS, QuantPlan
from bitvox.compiler.passes.plan_json import plan_from_json, plan_to_json
from bitvox.compiler.passes.refine_costs import RefineCostsPass
from bitvox.compiler.passes.sensitivity import MeasureSensitivityPass
from bitvox.compiler.passes.start import start_plan
from bitvox.compiler.passes.units import units_of
from bitvox.compiler.passes.verify import verify_plan
from bitvox.errors import InputError
from bitvox.exporters.manifest import Manifest
from support import PackedCosts, tiny_context, tiny_model


def _start(rounding: str = "gptq") -> QuantPlan:
    return start_plan(tiny_model(), PackedCosts(), "onnx", activations="dynamic", rounding=rounding)


@functools.cache
def _measured(cost: str) -> QuantPlan:
    context, plan = tiny_context(), _start()
    if cost == "median":
        plan = MeasureSensitivityPass().run(context, plan)
    return MeasureCostsPass(cost).run(context, plan)


@pytest.mark.parametrize("cost", ["divergence", "noise", "error", "median"])
def test_costs_fall_with_the_width_and_agree_within_a_group(cost: str) -> None:
    plan = _measured(cost)
    verify_plan(tiny_model(), plan, ("costs",))
    assert f"cost={cost}" in plan.method
    for entry in plan.sites:
        if entry.bits is None:
            assert entry.costs is None
            continue
        assert entry.costs is not None
        assert list(entry.costs) == sorted(entry.costs, reverse=True)
        assert 0 <= entry.costs[-1] < 0.1 * entry.costs[0]
    assert plan_from_json(plan_to_json(plan), "plan.json") == plan


def test_the_divergence_is_that_of_the_model_with_the_group_alone_rounded() -> None:
    context, plan = tiny_context(), _measured("divergence")
    unit = units_of(context, plan, "true")[3]
    weights = round_all(context, plan, [unit])[unit.entries[0][0].share_group].weights(2)
    with torch.inference_mode():
        module = copy.deepcopy(context.model.module)
        put_weights(module, weights)
        found = Divergence(context, SECONDS, BLANK_WEIGHT).of(module)
    costs = unit.entries[0][1].costs
    assert costs is not None
    assert costs[0] == pytest.approx(found, rel=1e-5)


def test_the_error_is_relative_to_the_output_without_its_bias() -> None:
    context, plan = tiny_context(), _measured("error")
    site = context.model.site("lm_head")
    hessian = gather_moments(context, [(site,)], "measure")[site.share_group].hessian(0)
    weight = context.model.site_module(site).weight.detach()
    unit = next(u for u in units_of(context, plan, "true") if u.entries[0][0] is site)
    lost = round_all(context, plan, [unit])[site.share_group].weights(3)[site.name] - weight
    wanted = torch.trace(lost @ hessian @ lost.T) / torch.trace(weight @ hessian @ weight.T)
    costs = plan.site(site.name).costs
    assert costs is not None
    assert costs[1] == pytest.approx(float(wanted), rel=1e-3)


def test_rounding_that_keeps_outputs_is_what_is_measured() -> None:
    ours, nearest = _measured("error"), MeasureCostsPass("error").run(tiny_context(), _start("nearest"))
    for one, other in zip(ours.sites, nearest.sites, strict=True):
        if one.costs is not None and other.costs is not None:
            assert one.costs[0] < other.costs[0]


def test_a_median_in_the_solver_needs_scores_and_no_clip() -> None:
    assert MeasureCostsPass("median").requires == {"scores"}
    context, plan = tiny_context(), _measured("median")
    silent = PassContext(context.model, (), context.costs)
    scored = MeasureSensitivityPass().run(context, _start())
    assert MeasureCostsPass("median").run(silent, scored) == plan
    with pytest.raises(InputError, match="no clip"):
        MeasureCostsPass("divergence").run(silent, _start())
    with pytest.raises(InputError, match="cost gradient: unknown"):
        MeasureCostsPass("gradient")


def test_frames_of_blank_count_less_and_the_same_model_does_not_diverge() -> None:
    context = tiny_context()
    assert Divergence(context, 1.0, 0.1).of(context.model.module) == pytest.approx(0, abs=1e-9)
    blank = context.model.processor.blank
    sure = {weight: Divergence(context, 1.0, weight) for weight in (0.0, 1.0)}
    for weight, divergence in sure.items():
        for expected, weights in zip(divergence._expected, divergence._weights, strict=True):
            wanted = 1 - (1 - weight) * expected[:, :, blank].exp()
            assert torch.allclose(weights, wanted)


def test_the_same_costs_whatever_the_threads() -> None:
    context, plan = tiny_context(), _start()
    for cost in ("divergence", "noise"):
        threaded = MeasureCostsPass(cost).run(dataclasses.replace(context, threads=3), plan)
        assert threaded == _measured(cost)


def test_refined_costs_are_those_around_the_widths_that_they_lead_to() -> None:
    context, plan = tiny_context(), _measured("divergence")
    budget = bytes_at_width(context, plan, 3)
    refined = Sequential((RefineCostsPass(budget, rounds=2),)).run(context, plan)
    said = dict(word.split("=") for word in refined.method.split())
    assert float(said["refined"]) <= float(said["realised"])
    allocated = AllocateExactPass(budget).run(context, plan)
    units = units_of(context, allocated, "true")
    module = _with_widths(context, allocated)
    divergence = Divergence(context, SECONDS, BLANK_WEIGHT)
    assert float(said["realised"]) == pytest.approx(divergence.of(module), rel=1e-3)
    total = sum(unit.entries[0][1].costs[WIDTHS.index(unit.entries[0][1].bits)] for unit in units)
    assert float(said["predicted"]) == pytest.approx(total, rel=1e-3)
    assert [entry.bits for entry in refined.sites] == [entry.bits for entry in plan.sites]


def _with_widths(context: PassContext, plan: QuantPlan) -> torch.nn.Module:
    module = copy.deepcopy(context.model.module)
    units = units_of(context, plan, "true")
    for name, one in round_all(context, plan, units).items():
        unit = next(u for u in units if u.entries[0][0].share_group == name)
        put_weights(module, one.weights(unit.entries[0][1].bits))
    return module


def test_costs_of_other_widths_stay_off_the_device() -> None:
    document = Manifest.plan_document(_measured("error"))
    assert not any("costs" in site for site in document["sites"])


def test_a_sample_of_channels_tells_relative_errors_nearly(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of the tiny clips H would be mostly ridge, which hides how the channels differ.
    monkeypatch.setattr(input_moments, "_FEW_FRAMES", 0.0)
    context, plan = tiny_context(), _start()
    units = units_of(context, plan, "true")
    every = round_all(context, plan, units)
    some = round_all(context, plan, units, (2, 3, 4, 5), sample=8)
    weights = [sum(c.numel() for r in found.values() for c in r.at[2].codes) for found in (some, every)]
    assert weights[0] < 0.8 * weights[1]
    for name, one in every.items():
        full, sampled = one.relative_errors(), some[name].relative_errors()
        assert set(sampled) == set(full)
        for width in (2, 3, 4, 5):
            assert 0.5 < sampled[width] / full[width] < 2
        assert sampled[7] == sampled[5] / 16


def test_with_the_ridge_of_few_frames_a_sample_tells_them_in_the_middle() -> None:
    context, plan = tiny_context(), _start()
    units = units_of(context, plan, "true")
    every = round_all(context, plan, units)
    some = round_all(context, plan, units, (2, 3, 4, 5), sample=8)
    ratios = [
        some[name].relative_errors()[width] / one.relative_errors()[width]
        for name, one in every.items()
        for width in (2, 3, 4, 5)
    ]
    assert median(ratios) == pytest.approx(1, abs=0.1)


def test_a_sample_hears_the_beginning_of_the_clips_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    context, plan = tiny_context(), _start()
    second = 1.1 * context.clips[0].size / context.model.processor.sampling_rate
    monkeypatch.setattr(measure_costs, "SAMPLED_SECONDS", second)
    first = dataclasses.replace(context, clips=context.clips[:1])
    assert context.beginning(0.0).clips == first.clips == context.beginning(second).clips
    for sample in (8, None):
        step = MeasureCostsPass("error", sample=sample)
        assert (step.run(context, plan) == step.run(first, plan)) == (sample == 8)
