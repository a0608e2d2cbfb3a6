import functools
import itertools
import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitvox.compiler.passes.allocate import AllocateMyQASRPass, bytes_at_width
from bitvox.compiler.passes.allocate_exact import AllocateExactPass, least_cost, silent_stdout
from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.measure_costs import with_costs
from bitvox.compiler.passes.plan import WIDTHS, QuantPlan
from bitvox.compiler.passes.start import start_plan
from bitvox.compiler.passes.units import units_of
from bitvox.compiler.passes.verify import verify_plan
from bitvox.errors import InputError, RequestError
from support import PackedCosts, reference_model


@functools.cache
def _costed() -> tuple[PassContext, QuantPlan]:
    """The reference model with costs drawn at random, halved or more by every bit."""
    model, generator = reference_model(), random.Random(5)
    context = PassContext(model, (), PackedCosts())
    plan = start_plan(model, PackedCosts(), "onnx")
    units = units_of(context, plan, "true")
    costs = {}
    for unit in units:
        level, row = 10 ** generator.uniform(-4, 0), {}
        for width in WIDTHS:
            row[width] = level = level * generator.uniform(0.1, 0.5)
        costs[unit.entries[0][0].share_group] = row
    return context, with_costs(plan, units, costs)


def _total(plan: QuantPlan, context: PassContext) -> float:
    found = 0.0
    for unit in units_of(context, plan, "true"):
        entry = unit.entries[0][1]
        assert entry.costs is not None
        assert entry.bits is not None
        found += entry.costs[WIDTHS.index(entry.bits)]
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.floats(0, 1.1))
def test_no_choice_of_all_is_better(seed: int, count: int, share: float) -> None:
    generator = random.Random(seed)
    costs = [{w: generator.uniform(0, 10 ** generator.uniform(-5, 1)) for w in WIDTHS} for _ in range(count)]
    sizes = [{w: w * generator.randint(1, 10**6) // 3 + 1 for w in WIDTHS} for _ in range(count)]
    low = sum(min(row.values()) for row in sizes)
    high = sum(max(row.values()) for row in sizes)
    room = low + int(share * (high - low))
    found = least_cost(costs, sizes, room)
    assert sum(size[w] for size, w in zip(sizes, found.widths, strict=True)) <= room
    best = min(
        sum(cost[w] for cost, w in zip(costs, widths, strict=True))
        for widths in itertools.product(WIDTHS, repeat=count)
        if sum(size[w] for size, w in zip(sizes, widths, strict=True)) <= room
    )
    assert found.cost == pytest.approx(best, rel=1e-9)
    assert found.gap <= 1e-6


def test_a_budget_that_fits_to_the_byte_is_used_to_the_byte() -> None:
    costs = [{2: 1.0, 3: 0.0}, {2: 1.0, 3: 0.0}]
    sizes = [{2: 10**7, 3: 15 * 10**6}, {2: 10**7, 3: 15 * 10**6 + 1}]
    assert least_cost(costs, sizes, 30 * 10**6 + 1).widths == (3, 3)
    assert least_cost(costs, sizes, 30 * 10**6).widths in ((2, 3), (3, 2))


def test_random_budgets_are_met_and_more_bytes_never_cost_more() -> None:
    context, plan = _costed()
    smallest, largest = (bytes_at_width(context, plan, width) for width in (2, 8))
    budgets = sorted(random.Random(2).randint(smallest, largest + 50_000) for _ in range(25))
    previous = float("inf")
    for budget in budgets:
        found = AllocateExactPass(budget).run(context, plan)
        assert found.total_bytes <= budget
        verify_plan(context.model, found, ("costs", "widths"))
        total = _total(found, context)
        assert total <= previous * (1 + 1e-9)
        previous = total


def test_it_never_costs_more_than_a_walk_of_the_same_bytes() -> None:
    context, plan = _costed()
    scored = plan.replace(sites=tuple(entry.replace(score=1.0) for entry in plan.sites))
    for width in (3, 4, 6):
        budget = bytes_at_width(context, plan, width) + 20_000
        ours = AllocateExactPass(budget).run(context, plan)
        for order in ("ascending", "uniform"):
            theirs = AllocateMyQASRPass(budget, order).run(context, scored)
            assert _total(ours, context) < _total(theirs, context)


def test_the_plan_says_why_and_how_sure_it_is() -> None:
    context, plan = _costed()
    found = AllocateExactPass(bytes_at_width(context, plan, 4)).run(context, plan)
    said = dict(word.split("=") for word in found.method.split())
    assert said["allocation"] == "exact"
    assert float(said["gap"]) <= 1e-6
    assert float(said["expected"]) == pytest.approx(_total(found, context), rel=1e-3)
    head = found.site("lm_head")
    assert head.bits is not None
    assert head.bits >= 6
    assert "with a bit more" in found.site(found.sites[9].site).reason


def test_what_cannot_be_met_is_said_with_the_nearest() -> None:
    context, plan = _costed()
    smallest = bytes_at_width(context, plan, 2)
    assert AllocateExactPass(smallest).run(context, plan).total_bytes == smallest
    with pytest.raises(RequestError, match=f"takes {smallest} bytes"):
        AllocateExactPass(smallest - 1).run(context, plan)
    with pytest.raises(InputError, match="positive"):
        AllocateExactPass(0)


def test_what_native_code_prints_stays_out_of_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    with silent_stdout():
        os.write(1, b"a remark of the solver\n")
    os.write(1, b"{}\n")
    assert capfd.readouterr().out == "{}\n"
