import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitvox.compiler.frontend.model import Site
from bitvox.compiler.passes.elimination import Elimination, round_gptq
from bitvox.compiler.passes.gptq import (
    STRENGTH,
    Best,
    RoundedRows,
    compensated,
    descend,
    round_group,
    round_nearest,
    round_rows,
)
from bitvox.compiler.passes.input_moments import InputMoments, gather_moments
from bitvox.compiler.passes.products import add_up
from bitvox.compiler.passes.quantizer import quantise_weight, weight_steps
from bitvox.compiler.passes.rows import DAMPING, Rows, clipped_steps, damped, errors
from support import tiny_context


def _problem(seed: int, rows: int, inputs: int, bits: int) -> tuple[Rows, torch.Tensor]:
    """Inputs that move together, as speech features do; a few weights are outliers."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(inputs, max(2, inputs // 3), generator=generator)
    seen = torch.randn(4 * inputs, mixing.shape[1], generator=generator) @ mixing.T
    seen += 0.1 * torch.randn(seen.shape, generator=generator)
    weights = torch.randn(rows, inputs, generator=generator)
    weights[:, 0] *= 4
    return Rows(weights, torch.full((rows,), float(bits))), seen.T @ seen / len(seen)


def _rounded(rows: Rows, hessian: torch.Tensor) -> RoundedRows:
    return round_rows(rows, hessian, Elimination.of(hessian))


def _slope(rows: Rows, steps: torch.Tensor, codes: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
    return rows.lost(steps, codes) @ hessian


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(2, 150), st.integers(2, 8))
def test_no_row_ever_costs_more_than_rounded_to_nearest(seed: int, rows: int, inputs: int, bits: int) -> None:
    problem, hessian = _problem(seed, rows, inputs, bits)
    steps, codes, told = _rounded(problem, hessian)
    found = errors(problem, steps, codes, hessian)
    assert (found <= round_nearest(problem, hessian).errors).all()
    assert torch.allclose(told, found, rtol=1e-3)
    assert torch.equal(codes, codes.round())
    assert codes.min() >= -(2 ** (bits - 1))
    assert codes.max() <= 2 ** (bits - 1) - 1
    assert torch.equal(steps, steps.half().float())


def test_it_halves_the_error_of_inputs_that_move_together_at_least() -> None:
    for bits in (2, 3, 4):
        problem, hessian = _problem(3, 16, 96, bits)
        found, nearest = _rounded(problem, hessian), round_nearest(problem, hessian)
        assert found.errors.sum() < 0.5 * nearest.errors.sum()


def test_what_few_frames_say_is_trusted_less_and_holds_better_on_others() -> None:
    """Of frames that moments saw few of, the error on all others is what the damping is for."""
    better = 0
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        mixing = torch.randn(96, 96, generator=generator) / torch.arange(1, 97).sqrt()
        site = Site("l", "linear", (24, 96), "linear", "l", True)
        moments = InputMoments(site)
        add_up(moments.parts(torch.randn(1, 60, 96, generator=generator) @ mixing.T), 1)
        rows = Rows(torch.randn(24, 96, generator=generator), torch.full((24,), 3.0))
        hessian, everything = moments.hessian(0), mixing @ mixing.T
        shares = DAMPING, moments.damping
        found = [round_rows(rows, hessian, Elimination.of(hessian, share)) for share in shares]
        on_others = [errors(rows, one.steps, one.codes, everything).sum() for one in found]
        better += bool(on_others[1] < on_others[0])
    assert better >= 9


def test_independent_inputs_leave_gptq_nothing_to_make_good() -> None:
    problem, _ = _problem(5, 4, 40, 3)
    steps = clipped_steps(problem, torch.eye(40))
    assert torch.equal(round_gptq(problem, steps, Elimination.of(torch.eye(40))), problem.nearest(steps))


def test_most_of_the_way_to_the_best_codes_of_a_problem_small_enough_to_try_all() -> None:
    reached, nearest = 0.0, 0.0
    for seed in range(20):
        problem, hessian = _problem(seed, 1, 6, 2)
        hessian = damped(hessian)
        steps = clipped_steps(problem, hessian)
        every = torch.tensor(list(itertools.product(range(-2, 2), repeat=6)), dtype=torch.float32)
        all_rows = Rows(problem.weights.expand(len(every), -1), problem.bits.expand(len(every)))
        least = errors(all_rows, steps.expand(len(every)), every, hessian).min()
        codes = round_gptq(problem, steps, Elimination.of(hessian))
        for _ in range(3):
            codes = descend(problem, steps, codes, hessian, _slope(problem, steps, codes, hessian))
        found = errors(problem, steps, codes, hessian)[0]
        assert found >= least * (1 - 1e-4)
        reached += float(found / least) / 20
        nearest += float(errors(problem, steps, problem.nearest(steps), hessian)[0] / least) / 20
    assert reached - 1 < 0.25 * (nearest - 1)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_neither_a_sweep_nor_a_refit_costs_anything(bits: int) -> None:
    problem, hessian = _problem(11, 8, 200, bits)
    hessian = damped(hessian)
    steps = clipped_steps(problem, hessian)
    codes = problem.nearest(steps)
    first = errors(problem, steps, codes, hessian)
    swept = descend(problem, steps, codes, hessian, _slope(problem, steps, codes, hessian))
    second = errors(problem, steps, swept, hessian)
    assert (second <= first * (1 + 1e-5)).all()
    assert second.sum() < first.sum()
    best = Best(problem, hessian, 1.1 * steps, swept)
    best.refit()
    assert torch.equal(best.codes, swept)
    assert torch.equal(best.steps, best.steps.half().float())
    third = errors(problem, best.steps, swept, hessian)
    assert torch.allclose(best.errors, third, rtol=1e-3)
    # Least squares, but for the rounding to float16.
    for nudged in (0.999, 1.001):
        assert (third <= errors(problem, nudged * best.steps, swept, hessian)).all()


def test_a_dead_input_and_a_row_of_zeros_are_rounded_like_any_other() -> None:
    problem, hessian = _problem(2, 3, 20, 3)
    weights = problem.weights.clone()
    weights[1] = 0
    hessian[4] = hessian[:, 4] = 0
    rows = Rows(weights, problem.bits)
    found = _rounded(rows, hessian)
    assert torch.isfinite(found.errors).all()
    assert (found.codes[1] == 0).all()
    silent = _rounded(rows, torch.zeros(20, 20))
    assert torch.isfinite(silent.steps).all()


def test_widths_and_members_of_a_group_do_not_touch_each_other() -> None:
    context = tiny_context()
    group = next(group for group in context.model.share_groups() if len(group) == 3)
    moments = gather_moments(context, [group], "measure")[group[0].share_group]
    weights = [context.model.site_module(site).weight for site in group]
    together = round_group(weights, (2, 5), moments, "gptq")
    alone = round_group(weights[1:2], (5,), moments, "gptq")[5]
    assert torch.equal(together[5].codes[1], alone.codes[0])
    assert torch.equal(together[5].steps[1], alone.steps[0])
    assert together[5].error < together[2].error


@pytest.mark.parametrize("name", ["feature_extractor.conv_layers.1.conv", "pos_conv_embed.conv"])
def test_convolutions_are_rounded_group_by_group_in_their_own_shape(name: str) -> None:
    context = tiny_context()
    group = next(g for g in context.model.share_groups() if g[0].name.endswith(name))
    moments = gather_moments(context, [group], "measure")[group[0].share_group]
    weight = context.model.site_module(group[0]).weight.detach()
    nearest = round_group([weight], (3,), moments, "nearest")[3]
    steps = weight_steps(weight, 3, "channel")
    assert torch.equal(nearest.codes[0].float(), quantise_weight(weight, steps, 3))
    assert torch.equal(nearest.steps[0], steps)
    found = round_group([weight], (3,), moments, "gptq")[3]
    assert found.codes[0].shape == weight.shape
    assert found.error < nearest.error


def test_depthwise_channels_rounded_together_are_rounded_as_alone() -> None:
    problems = [_problem(seed, 3, 9, 3) for seed in range(5)]
    together = Rows(torch.stack([rows.weights for rows, _ in problems]), problems[0][0].bits)
    found = _rounded(together, torch.stack([hessian for _, hessian in problems]))
    for number, (rows, hessian) in enumerate(problems):
        ours = errors(rows, found.steps[number], found.codes[number], hessian)
        assert torch.allclose(ours, _rounded(rows, hessian).errors, rtol=1e-3)


def _drifted(seed: int, rows: int, inputs: int, bits: int) -> tuple[Rows, torch.Tensor, torch.Tensor]:
    """Rows, H of an input that has lost a part that moves with what is left, and E[lost x^T]."""
    problem, _ = _problem(seed, rows, inputs, bits)
    generator = torch.Generator().manual_seed(seed + 1)
    seen = torch.randn(4 * inputs, inputs, generator=generator)
    lost = 0.3 * seen @ torch.randn(inputs, inputs, generator=generator) / inputs**0.5
    return problem, seen.T @ seen / len(seen), lost.T @ seen / len(seen)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 60), st.integers(2, 8))
def test_compensated_rows_never_cost_more_than_the_originals_rounded(
    seed: int, inputs: int, bits: int
) -> None:
    problem, hessian, drift = _drifted(seed, 24, inputs, bits)
    elimination = Elimination.of(hessian)
    wanted = Rows(compensated(problem.weights, drift, elimination), problem.bits)
    found = round_rows(wanted, hessian, elimination, problem.weights)
    ours = errors(wanted, found.steps, found.codes, hessian)
    nearest = round_nearest(problem, hessian)
    assert (ours <= errors(wanted, nearest.steps, nearest.codes, hessian)).all()
    if inputs > 7:  # of two or three coarse codes any may be luckier than another
        plain = round_rows(problem, hessian, elimination)
        assert ours.sum() < errors(wanted, plain.steps, plain.codes, hessian).sum()


def test_compensation_is_least_squares_and_nothing_where_nothing_drifted() -> None:
    problem, hessian, drift = _drifted(4, 6, 30, 4)
    elimination = Elimination.of(hessian)
    found = compensated(problem.weights, drift, elimination)
    best = problem.weights + problem.weights @ drift @ torch.linalg.inv(damped(hessian))
    assert torch.allclose(found, problem.weights + STRENGTH * (best - problem.weights), atol=1e-3)
    assert torch.equal(compensated(problem.weights, torch.zeros(30, 30), elimination), problem.weights)
