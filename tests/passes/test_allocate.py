import functools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitvox.compiler.frontend.model import SpeechModel
from bitvox.compiler.passes.allocate import AllocateMyQASRPass, bytes_at_width
from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.bytes import ByteCosts, average_bits, paper_bytes
from bitvox.compiler.passes.plan import WIDTHS, QuantPlan
from bitvox.compiler.passes.plan_json import plan_to_json
from bitvox.compiler.passes.policy import POLICIES
from bitvox.compiler.passes.start import start_plan
from bitvox.compiler.passes.verify import verify_plan
from bitvox.errors import InputError, RequestError
from support import PackedCosts, reference_model, tiny_context

ORDERS = ("ascending", "descending", "shuffled", "min-max", "uniform")


@functools.cache
def _scored(tier: str = "default") -> tuple[PassContext, QuantPlan]:
    """The reference model with scores drawn at random."""
    model = reference_model()
    generator = random.Random(7)
    plan = start_plan(model, PackedCosts(), "onnx", tier)
    sites = tuple(entry.replace(score=round(generator.uniform(0, 3), 3)) for entry in plan.sites)
    return PassContext(model, (), PackedCosts()), plan.replace(sites=sites)


def _floor(model: SpeechModel, tier: str, name: str) -> int:
    floor = POLICIES[tier][model.site(name).role].floor
    assert floor is not None
    return floor


def _largest_step(context: PassContext, plan: QuantPlan) -> int:
    def size(name: str, bits: int) -> int:
        entry = plan.site(name)
        return context.costs.site(context.model.site(name), bits, entry.granularity, entry.activations)

    steps = []
    for group in context.model.share_groups():
        names = [site.name for site in group if plan.site(site.name).bits is not None]
        steps += [sum(size(n, b) - size(n, b - 1) for n in names) for b in WIDTHS[1:]]
    return max(steps)


def _counted(context: PassContext, plan: QuantPlan) -> int:
    """Size of a plan, counted anew."""
    costs: ByteCosts = context.costs
    return costs.fixed + sum(
        costs.site(context.model.site(entry.site), entry.bits, entry.granularity, entry.activations)
        for entry in plan.sites
    )


@functools.cache
def _limits(tier: str) -> tuple[int, int]:
    context, plan = _scored(tier)
    return bytes_at_width(context, plan, 2), bytes_at_width(context, plan, 8)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("tier", ["default", "paper"])
def test_200_random_budgets_are_met_monotone_and_deterministic(order: str, tier: str) -> None:
    context, plan = _scored(tier)
    smallest, largest = _limits(tier)
    budgets = sorted(random.Random(1).randint(smallest, largest + 100_000) for _ in range(200))
    step, previous = _largest_step(context, plan), 0
    for budget in budgets:
        allocation = AllocateMyQASRPass(budget, order=order)
        result = allocation.run(context, plan)
        assert result.total_bytes == _counted(context, result) <= budget
        assert result.total_bytes >= previous
        if order != "uniform":
            assert result.total_bytes > min(budget, largest) - step
        previous = result.total_bytes
        assert allocation.run(context, plan) == result
        verify_plan(context.model, result, ("scores", "widths"))


@settings(max_examples=100, deadline=None)
@given(
    st.floats(0, 1),
    st.sampled_from(["ascending", "descending", "shuffled"]),
    st.sampled_from(["default", "paper"]),
)
def test_widths_differ_by_at_most_one_apart_from_floors(share: float, order: str, tier: str) -> None:
    context, plan = _scored(tier)
    smallest, largest = _limits(tier)
    budget = smallest + int(share * (largest - smallest))
    result = AllocateMyQASRPass(budget, order=order).run(context, plan)
    free = []
    for entry in result.sites:
        if entry.bits is None:
            continue
        floor = _floor(context.model, tier, entry.site)
        assert floor <= entry.bits <= 8
        if entry.bits > floor:
            free.append(entry.bits)
    assert not free or max(free) - min(free) <= 1


@pytest.mark.parametrize("order,sign", [("ascending", 1), ("descending", -1)])
def test_the_order_of_the_scores_decides_who_loses_the_bit(order: str, sign: int) -> None:
    context, plan = _scored()
    budget = (bytes_at_width(context, plan, 4) + bytes_at_width(context, plan, 5)) // 2
    result = AllocateMyQASRPass(budget, order=order).run(context, plan)
    scores = {4: [], 5: []}
    for group in context.model.share_groups():
        entries = [result.site(site.name) for site in group]
        if entries[0].bits in scores:
            scores[entries[0].bits].append(sign * sorted(e.score for e in entries)[(len(entries) - 1) // 2])
    assert scores[4]
    assert scores[5]
    assert max(scores[4]) <= min(scores[5])


def test_shuffled_depends_on_its_seed_alone() -> None:
    context, plan = _scored()
    budget = (bytes_at_width(context, plan, 4) + bytes_at_width(context, plan, 5)) // 2
    results = [
        AllocateMyQASRPass(budget, order="shuffled", seed=seed).run(context, plan) for seed in (1, 1, 2)
    ]
    assert results[0] == results[1]
    assert [e.bits for e in results[0].sites] != [e.bits for e in results[2].sites]


def test_min_max_maps_scores_not_ranks() -> None:
    context, plan = _scored()
    scores = {site.name: 0.0 for site in context.model.sites}
    middle, top = context.model.sites[-3].name, context.model.sites[-2].name
    scores |= {middle: 1.0, top: 2.0}
    plan = plan.replace(sites=tuple(entry.replace(score=scores[entry.site]) for entry in plan.sites))
    fitting = plan.replace(
        sites=tuple(
            entry
            if entry.bits is None
            else entry.replace(
                bits=max(2 + 3 * int(scores[entry.site]), _floor(context.model, "default", entry.site))
            )
            for entry in plan.sites
        )
    )
    result = AllocateMyQASRPass(_counted(context, fitting), order="min-max").run(context, plan)
    assert [entry.bits for entry in result.sites] == [entry.bits for entry in fitting.sites]
    assert (result.site(middle).bits, result.site(top).bits) == (5, 8)


def test_share_groups_share_a_width_and_the_head_keeps_its_floor() -> None:
    context, plan = _scored()
    result = AllocateMyQASRPass(bytes_at_width(context, plan, 3)).run(context, plan)
    for group in context.model.share_groups():
        assert len({result.site(site.name).bits for site in group}) == 1
    head = result.site("lm_head")
    assert head.bits == 6
    assert "floor of 6 bits" in head.reason
    assert result.sites[0].bits is None
    assert "full precision" in result.sites[0].reason


@pytest.mark.parametrize("order", ORDERS)
def test_a_budget_below_the_smallest_names_the_smallest(order: str) -> None:
    context, plan = _scored()
    smallest = _limits("default")[0]
    with pytest.raises(
        RequestError, match=rf"^budget 400 kB: the smallest bundle of this model takes {smallest} bytes"
    ):
        AllocateMyQASRPass(400_000, order=order).run(context, plan)
    assert AllocateMyQASRPass(smallest, order=order).run(context, plan).total_bytes == smallest


def test_paper_accounting_follows_the_figure() -> None:
    context, plan = _scored("paper")
    parameters = sum(p.numel() for p in context.model.module.parameters())
    walked = AllocateMyQASRPass(parameters, accounting="paper").run(context, plan)
    assert {entry.bits for entry in walked.sites} == {None, 8}
    wrapped = sum(context.model.site(e.site).weights for e in plan.sites if e.bits is not None)
    budget = parameters - wrapped + wrapped * 5 // 8
    result = AllocateMyQASRPass(budget, accounting="paper").run(context, plan)
    assert budget - wrapped // 8 < paper_bytes(context.model, result) <= budget
    verify_plan(context.model, result, ("widths",))


def test_a_site_that_the_plan_keeps_at_full_precision_stays() -> None:
    context, plan = _scored()
    kept = context.model.sites[9].name
    edited = tuple(
        e.replace(bits=None, activations="float", stored_bytes=0) if e.site == kept else e for e in plan.sites
    )
    budget = _limits("default")[1]
    result = AllocateMyQASRPass(budget).run(context, plan.replace(sites=edited))
    assert result.site(kept).bits is None


@pytest.mark.parametrize(
    "options,message",
    [
        ({"budget": 0}, "budget 0: use a positive"),
        ({"budget": 1, "order": "random"}, "order random: unknown; use one of ascending"),
    ],
)
def test_bad_options_are_one_line(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        AllocateMyQASRPass(**options)


def test_plans_are_the_same_text_twice() -> None:
    context, plan = _scored()
    texts = {plan_to_json(AllocateMyQASRPass(2_000_000).run(context, plan)) for _ in range(2)}
    assert len(texts) == 1


def test_average_bits_are_per_weight_of_the_quantised_sites() -> None:
    context = tiny_context()
    plan = start_plan(context.model, context.costs, "onnx")
    assert average_bits(context.model, plan) == 8
    head = plan.sites[-1]
    narrow = plan.replace(sites=(*plan.sites[:-1], head.replace(bits=6)))
    weights = sum(site.weights for site in context.model.sites if plan.site(site.name).bits)
    lost = 2 * context.model.site(head.site).weights / weights
    assert average_bits(context.model, narrow) == pytest.approx(8 - lost)
    floats = plan.replace(sites=tuple(entry.replace(bits=None) for entry in plan.sites))
    assert average_bits(context.model, floats) == 32
