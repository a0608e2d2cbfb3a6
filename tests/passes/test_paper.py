"""myQASR as published: its walk, its two tiers, and the size axis of its figure."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import random
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

from bitvox.compiler.frontend.families import FAMILIES
from bitvox.compiler.frontend.model import SpeechModel
from bitvox.compiler.frontend.prepare import prepare
from bitvox.compiler.frontend.sites import find_sites
from bitvox.compiler.passes.allocate import AllocateMyQASRPass, bytes_at_width
from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.bytes import average_bits, paper_bytes
from bitvox.compiler.passes.plan import WIDTHS, QuantPlan, Range
from bitvox.compiler.passes.policy import POLICIES
from bitvox.compiler.passes.quantizer import QuantisedSite, largest_weights
from bitvox.compiler.passes.start import start_plan
from bitvox.compiler.passes.weight_search import FACTORS, SiteSample, search_steps
from bitvox.errors import RequestError
from support import PackedCosts, tiny_context, tiny_model

MIB = 1 << 20
_REPOSITORY = Path(__file__).resolve().parents[2]


@functools.cache
def wav2vec2_base() -> SpeechModel:
    """The structure of facebook/wav2vec2-base-960h, without its weights."""
    family, small = FAMILIES["Wav2Vec2ForCTC"], tiny_model()
    with torch.inference_mode(False), torch.device("meta"):
        loaded = Wav2Vec2ForCTC(Wav2Vec2Config())
        prepare(loaded)
        module = family.wrap(loaded)
        processor = small.processor.model_copy(update={"minimum_samples": 400})
        graphs = family.graphs(module, processor)
        sites = find_sites(module, family, graphs)
    return dataclasses.replace(small, module=module, graphs=graphs, sites=sites)


@functools.cache
def layer_by_layer() -> tuple[PassContext, QuantPlan]:
    """That structure at the paper's tier, every layer with a width of its own as in the paper."""
    model = wav2vec2_base()
    sites = tuple(dataclasses.replace(site, share_group=site.name) for site in model.sites)
    context = PassContext(dataclasses.replace(model, sites=sites), (), PackedCosts())
    return context, start_plan(context.model, context.costs, "onnx", "paper")


def scored(plan: QuantPlan, seed: int) -> QuantPlan:
    """The plan with a score drawn for every site; some are equal."""
    draw = random.Random(seed)
    return plan.replace(sites=tuple(entry.replace(score=draw.randint(0, 60) / 20) for entry in plan.sites))


def algorithm_1(
    weights: Sequence[int], medians: Sequence[float], floors: Sequence[int], rest: int, budget: int
) -> list[int] | None:
    """Algorithm 1 as printed, from 32 bits down; a layer stops at its floor, None where all have."""
    bits = [32] * len(weights)
    order = sorted(range(len(weights)), key=lambda layer: medians[layer])

    def fits() -> bool:
        return rest + sum((size * b + 7) // 8 for size, b in zip(weights, bits, strict=True)) <= budget

    while not fits():
        if bits == list(floors):
            return None
        for layer in order:
            bits[layer] = max(bits[layer] - 1, floors[layer])
            if fits():
                break
    return bits


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9999), st.floats(-0.05, 1.0), st.sampled_from([1, -1]))
def test_the_walk_is_algorithm_1_as_printed(seed: int, share: float, sign: int) -> None:
    context, start = layer_by_layer()
    plan = scored(start, seed)
    low, high = (bytes_at_width(context, plan, width, "paper") for width in (2, 8))
    budget = round(low + share * (high - low))
    walked = [(context.model.site(e.site), e) for e in plan.sites if e.bits is not None]
    floors = [POLICIES["paper"][site.role].floor or 2 for site, _ in walked]
    expected = algorithm_1(
        [site.weights for site, _ in walked],
        [sign * (entry.score or 0.0) for _, entry in walked],
        floors,
        high - sum(site.weights for site, _ in walked),
        budget,
    )
    allocate = AllocateMyQASRPass(budget, "ascending" if sign > 0 else "descending", accounting="paper")
    if expected is None:
        with pytest.raises(RequestError, match=f"the smallest bundle of this model takes {low} bytes"):
            allocate.run(context, plan)
        return
    result = allocate.run(context, plan)
    assert [result.site(site.name).bits for site, _ in walked] == expected
    free = [b for b, floor in zip(expected, floors, strict=True) if b > floor]
    assert not free or max(free) - min(free) <= 1
    largest = max(site.weights for site, _ in walked)
    assert budget - (largest + 7) // 8 < paper_bytes(context.model, result) <= budget


def test_sizes_are_those_of_the_published_figure() -> None:
    """58.0, 68.7, 79.3 (digitised from the plot, so to a tenth) and 90.0 MiB for 5, 6, 7 and 8 bits."""
    context, plan = layer_by_layer()
    model = context.model
    assert sum(parameter.numel() for parameter in model.module.parameters()) == 94_396_320 - 128  # folded
    assert sum(model.site(entry.site).weights for entry in plan.sites if entry.bits is not None) == 89_527_296
    for width, figure in ((5, 58.01), (6, 68.68), (7, 79.35), (8, 90.02)):
        size = bytes_at_width(context, plan, width, "paper")
        assert size / MIB == pytest.approx(figure, abs=0.006)
        uniform = AllocateMyQASRPass(size, "uniform", accounting="paper").run(context, plan)
        assert paper_bytes(model, uniform) == size
        assert average_bits(model, uniform) == pytest.approx(width, abs=0.001)  # the first layer stays at 8


def test_the_rest_is_everything_that_is_not_quantised_whatever_the_tier() -> None:
    model = wav2vec2_base()
    total = sum(parameter.numel() for parameter in model.module.parameters())
    for tier in ("default", "paper"):
        plan = start_plan(model, PackedCosts(), "onnx", tier)
        assert paper_bytes(model, plan) == total
        floats = plan.replace(sites=tuple(entry.replace(bits=None) for entry in plan.sites))
        assert paper_bytes(model, floats) == total
    positional = next(site for site in model.sites if site.role == "positional_conv")
    assert isinstance(model.site_module(positional).weight, torch.nn.Parameter)
    assert 4 * positional.weights / MIB == 18.0


def test_average_bits_are_weighted_by_parameters_not_by_layers() -> None:
    context, plan = layer_by_layer()
    model = context.model
    largest = max(
        (model.site(e.site) for e in plan.sites if e.bits is not None), key=lambda site: site.weights
    )
    narrow = plan.replace(sites=tuple(e.replace(bits=2) if e.site == largest.name else e for e in plan.sites))
    assert average_bits(model, narrow) == pytest.approx(8 - 6 * largest.weights / 89_527_296)


def test_what_each_tier_quantises_and_by_which_steps() -> None:
    paper, ours = POLICIES["paper"], POLICIES["default"]
    assert {role: paper[role].granularity for role in ("conv", "linear")} == {
        "conv": "channel",
        "linear": "tensor",
    }
    assert paper["positional_conv"].floor is None and paper["head"].floor is None
    assert all(policy.granularity == "channel" for policy in ours.values())
    assert ours["positional_conv"].floor == 2 and ours["head"].floor == 6


@pytest.mark.parametrize("tier", ["default", "paper"])
def test_steps_of_a_convolution_are_those_of_its_own_channels(tier: str) -> None:
    """The released code scales every channel by the range of the first; one of 3 times its range clips."""
    context = tiny_context()
    site = next(site for site in context.model.sites if site.role == "conv")
    module = torch.nn.Conv1d(site.shape[1], site.shape[0], site.shape[2])
    with torch.no_grad():
        module.weight[1] *= 3
    entry = start_plan(context.model, context.costs, "onnx", tier).site(site.name)
    for bits in WIDTHS:  # half a step, and what float16 takes from the step itself
        stored = QuantisedSite(module, site, entry.replace(bits=bits, activations="float")).weight
        step = largest_weights(module.weight.detach(), "channel") / (2 ** (bits - 1) - 0.5)
        error = (stored - module.weight).abs().amax(dim=(1, 2))
        assert (error <= 0.57 * step).all()


def test_the_search_alternates_weights_and_activations_for_three_rounds() -> None:
    context = tiny_context()
    site = context.model.site("wav2vec2.encoder.layers.0.feed_forward.intermediate_dense")
    weight = torch.randn(site.shape)
    sample = SiteSample(site, weight, None, torch.randn(8, 1, site.shape[1]))
    entry = start_plan(context.model, context.costs, "onnx").site(site.name)
    entry = entry.replace(bits=3, input_range=Range(-3.0, 3.0))
    draw, seen = random.Random(0), []

    def never_settles(_sample: SiteSample, _wanted: torch.Tensor, got: torch.Tensor) -> float:
        seen.append(got)
        return draw.random()

    search_steps([sample], [entry], never_settles)
    searches = 3 * 2
    assert len(seen) == searches * (1 + len(FACTORS))
    assert len(FACTORS) == 100
    # A factor of 0.01 leaves next to nothing of what it multiplies, be it weights or activations.
    firsts = [seen[index * 101 + 1].abs().max() for index in range(searches)]
    assert max(firsts) < 0.1 * min(part.abs().max() for part in itertools.islice(seen, 50, None, 101))


def test_the_page_on_myqasr_names_tests_that_there_are() -> None:
    lines = (_REPOSITORY / "docs" / "myqasr.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("|")][2:]
    assert len(rows) > 15
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row)
        assert named, row
        for file, test in named:
            assert f"def {test}(" in (_REPOSITORY / file).read_text(encoding="utf-8")
