"""Levers of rounding: each does what its name says, and is measured beside the product's own."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bitvox.benchmarks.experiments import levers, report_levers
from bitvox.benchmarks.experiments.grids import even, gaussian, offset, rotated, round_on
from bitvox.benchmarks.experiments.repairs import corrected_biases, refitted_norms
from bitvox.benchmarks.experiments.speech import draw_clips, read_split, stratified
from bitvox.compiler.passes.elimination import Elimination
from bitvox.compiler.passes.gptq import round_rows
from bitvox.compiler.passes.rows import DAMPING, Rows
from support import tiny_context


def _problem(rows: int = 12, inputs: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    seen = torch.randn(4 * inputs, inputs // 2, generator=generator) @ torch.randn(
        inputs // 2, inputs, generator=generator
    )
    seen += 0.3 * torch.randn(seen.shape, generator=generator)
    return torch.randn(rows, inputs, generator=generator), seen.T @ seen / len(seen)


def _cost(found: torch.Tensor, wanted: torch.Tensor, hessian: torch.Tensor) -> float:
    return float((((found - wanted) @ hessian) * (found - wanted)).sum())


def test_grids_have_their_levels_and_groups_their_steps() -> None:
    wanted, hessian = _problem()
    assert even(2).tolist() == [-2, -1, 0, 1]
    assert offset(2).tolist() == [-1.5, -0.5, 0.5, 1.5]
    assert gaussian(2).tolist() == pytest.approx([-1.51, -0.453, 0.453, 1.51], abs=0.01)  # Max 1960
    whole = round_on(wanted, hessian, even(2), None, 2, DAMPING)
    assert all(len(row.unique()) <= 4 for row in whole)
    parts = round_on(wanted, hessian, even(2), 16, 2, DAMPING)
    assert all(len(part.unique()) <= 4 for row in parts for part in row.split(16))
    assert max(len(row.unique()) for row in parts) > 4
    assert _cost(parts, wanted, hessian) < _cost(whole, wanted, hessian)


def test_sweeps_pay_and_the_even_grid_is_rounded_as_well_as_the_product_rounds_it() -> None:
    wanted, hessian = _problem()
    found = [
        _cost(round_on(wanted, hessian, even(3), None, sweeps, DAMPING), wanted, hessian) for sweeps in (0, 2)
    ]
    assert found[1] < found[0]
    ours = round_rows(Rows(wanted, torch.full((12,), 3.0)), hessian, Elimination.of(hessian))
    assert found[1] < 1.1 * _cost(ours.codes * ours.steps[:, None], wanted, hessian)


def test_a_turn_is_undone() -> None:
    wanted, hessian = _problem()
    assert torch.allclose(rotated(wanted, hessian, lambda rows, _: rows), wanted, atol=1e-5)
    turned: list[torch.Tensor] = []
    rotated(wanted[:, :48], hessian[:48, :48], lambda rows, _: turned.append(rows) or rows)
    assert torch.allclose(turned[0].norm(), wanted[:, :48].norm())
    assert not torch.allclose(turned[0], wanted[:, :48])


def test_every_lever_is_measured_once(tmp_path: Path, checkpoint: Path, speech: Path) -> None:
    calibration = tuple(draw_clips(read_split(speech, "an4", "train"), 4, seed=0))
    judged = stratified(read_split(speech, "an4", "dev"), 2, seed=0)
    repaired = "biases corrected by the mean", "norms refitted"
    names = "as compiled", "nothing made good", *repaired
    chosen = tuple(one for one in levers.LEVERS if one.name in names)
    of_groups = next(one for one in levers.LEVERS if one.name == "steps per group of 64 inputs")
    grouped = replace(of_groups, name="groups", group=16)
    setting = levers.Setting(str(checkpoint), calibration, judged, (2,), (*chosen, grouped))
    document = levers.levers(tmp_path / "levers.json", setting)
    own, plain, *repairs, groups = document.rows
    assert 0 < own.divergence < plain.divergence
    assert len({row.divergence for row in (own, *repairs)}) == 3
    assert {row.bytes for row in (plain, *repairs)} == {own.bytes}
    assert own.bytes < groups.bytes
    assert levers.levers(tmp_path / "levers.json", setting).rows == document.rows
    assert report_levers.section(tmp_path / "levers.json").count("| 2 |") == 5


def test_repairs_take_back_what_weights_moved() -> None:
    context = tiny_context(conv_bias=True)
    inputs = [context.model.inputs(samples) for samples in context.clips]
    first = context.model.sites[0].name

    def worn() -> torch.nn.Module:
        module = copy.deepcopy(context.model.module)
        module.get_submodule(first).weight.data.mul_(0.7)
        return module

    wanted = context.model.module(*inputs[0])
    for repair in (corrected_biases, refitted_norms):
        module = worn()
        before = (module(*inputs[0]) - wanted).square().mean()
        names = repair(context.model, module, inputs)
        assert {name.rpartition(".")[0] for name in names} <= {name for name, _ in module.named_modules()}
        assert (module(*inputs[0]) - wanted).square().mean() < before
