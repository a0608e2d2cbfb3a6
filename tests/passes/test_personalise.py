"""What is learnt from two sets of clips: each end is one set alone, and the generic side is found once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from bitvox.compiler.lowering.rounding import round_sites
from bitvox.compiler.passes.allocate import bytes_at_width
from bitvox.compiler.passes.allocate_exact import AllocateExactPass
from bitvox.compiler.passes.base import Generic, PassContext, Sequential
from bitvox.compiler.passes.calibrate import CalibratePass
from bitvox.compiler.passes.input_moments import gather_moments
from bitvox.compiler.passes.measure_costs import MeasureCostsPass
from bitvox.compiler.passes.personalise import PersonalisePass, personal_context
from bitvox.compiler.passes.plan import QuantPlan
from bitvox.compiler.passes.rows import DAMPING
from bitvox.compiler.passes.sensitivity import MeasureSensitivityPass
from bitvox.compiler.passes.start import start_plan
from bitvox.store import FileStore
from support import PackedCosts, noise_clips, tiny_context, tiny_model

GENERIC = noise_clips(2, seed=7)
PASSES = (MeasureSensitivityPass(), MeasureCostsPass("error"))


def _start() -> QuantPlan:
    return start_plan(tiny_model(), PackedCosts(), "onnx", rounding="gptq")


def _compensated(plan: QuantPlan) -> QuantPlan:
    return plan.replace(sites=tuple(entry.replace(rounding="compensated") for entry in plan.sites))


def _plan(context: PassContext) -> QuantPlan:
    """Measured, allocated and calibrated, as planning does it."""
    store = context.generic.store if context.generic else None
    measured = Sequential((PersonalisePass(PASSES),)).run(context, _start(), store)
    budget = bytes_at_width(context, measured, 3)
    allocated = Sequential((AllocateExactPass(budget),)).run(context, measured)
    return Sequential((PersonalisePass((CalibratePass(),)),)).run(context, allocated)


def test_the_ends_are_each_side_alone() -> None:
    own = tiny_context()
    generic = dataclasses.replace(own, clips=GENERIC)
    for share, alone in ((0.0, generic), (1.0, own)):
        mixed = personal_context(own, GENERIC, share)
        assert _plan(mixed) == _plan(alone)
        plan = _plan(alone)
        for asked in (plan, _compensated(plan)):
            codes, expected = (round_sites(context, asked) for context in (mixed, alone))
            assert codes
            for name, site in expected.items():
                assert torch.equal(codes[name].codes, site.codes)


def test_what_is_between_rounds_for_both() -> None:
    """The drift is that of both sides: the same clips on both are those clips twice."""
    own = tiny_context()
    plan = _compensated(_plan(own))
    both = round_sites(personal_context(own, own.clips, 0.5), plan)
    other = round_sites(personal_context(own, GENERIC, 0.5), plan)
    twice = round_sites(dataclasses.replace(own, clips=own.clips * 2), plan)
    same = [torch.equal(both[name].codes, site.codes) for name, site in twice.items()]
    assert sum(same) > 0.8 * len(same)  # sums in another order may tip a code
    assert not all(torch.equal(other[name].codes, site.codes) for name, site in twice.items())


def test_h_is_a_mean_of_the_two() -> None:
    own = tiny_context()
    groups = list(own.model.share_groups())
    mixed, user, generic = (
        gather_moments(context, groups, "x")
        for context in (personal_context(own, GENERIC, 0.25), own, dataclasses.replace(own, clips=GENERIC))
    )
    for name, moments in mixed.items():
        wanted = 0.75 * generic[name].hessian(0) + 0.25 * user[name].hessian(0)
        assert not torch.equal(user[name].hessian(0), generic[name].hessian(0))
        torch.testing.assert_close(moments.hessian(0), wanted)
        # The variance of the mean: 1/16 of that of the user's and 9/16 of that of the generic clips.
        ridges = [one.damping - DAMPING for one in (moments, user[name], generic[name])]
        assert ridges[0] == pytest.approx(ridges[1] / 16 + ridges[2] * 9 / 16)


def test_numbers_of_a_plan_lie_between_the_two() -> None:
    own = tiny_context()
    start = _plan(own)
    for step, number in (
        (MeasureSensitivityPass(), lambda entry: entry.score),
        (MeasureCostsPass("error"), lambda entry: entry.costs[0]),
        (CalibratePass(), lambda entry: entry.input_range.high),
    ):
        mixed = PersonalisePass((step,)).run(personal_context(own, GENERIC, 0.25), start)
        sides = (step.run(dataclasses.replace(own, clips=clips), start) for clips in (GENERIC, own.clips))
        found, first, second = (number(plan.sites[-1]) for plan in (mixed, *sides))
        assert first != second
        # Costs are those of weights that are rounded with the mixed H.
        loose = 0.2 if isinstance(step, MeasureCostsPass) else 1e-6
        assert found == pytest.approx(0.75 * first + 0.25 * second, rel=loose)


def test_the_generic_side_is_found_once(tmp_path: Path) -> None:
    store, stages = FileStore(tmp_path), []
    telling = dataclasses.replace(tiny_context(), progress=lambda stage, *step: stages.append((stage, *step)))
    _plan(personal_context(telling, GENERIC, 0.5, store))
    assert ("measure generic inputs", 2, 2) in stages
    clips = ("measure inputs", len(GENERIC), len(GENERIC))
    assert stages.count(clips) == 1

    stages.clear()
    other = dataclasses.replace(telling, clips=noise_clips(seed=3))
    plan = _plan(personal_context(other, GENERIC, 0.75, store))
    assert not any(stage == "measure generic inputs" for stage, *_ in stages)
    assert stages.count(clips) == 0
    assert plan == _plan(personal_context(other, GENERIC, 0.75))


def test_contracts_are_those_of_the_passes_together() -> None:
    assert PersonalisePass((MeasureCostsPass("median"),)).requires == {"scores"}
    both = PersonalisePass((MeasureSensitivityPass(), MeasureCostsPass("median")))
    assert (both.requires, both.ensures) == (frozenset(), {"scores", "costs"})
    with pytest.raises(ValueError, match="share 1: mixes nothing"):
        Generic(GENERIC, 1)
