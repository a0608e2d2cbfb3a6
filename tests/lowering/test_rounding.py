import numpy as np
import pytest
import torch

from bitvox.compiler.lowering.packed import PackedTensor, lower
from bitvox.compiler.lowering.rounding import round_sites
from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.plan import QuantPlan
from bitvox.compiler.passes.quantizer import quantise_module
from bitvox.compiler.passes.start import start_plan
from bitvox.compiler.passes.verify import verify_plan
from bitvox.errors import InputError
from bitvox.store import FileStore
from support import PackedCosts, noise_clips, tiny_context, tiny_model


def _plan(bits: int = 3, tier: str = "default", rounding: str = "gptq") -> QuantPlan:
    plan = start_plan(tiny_model(), PackedCosts(), "onnx", tier, "dynamic", rounding=rounding)
    return plan.replace(sites=tuple(e.replace(bits=e.bits and bits) for e in plan.sites))


def _loss(plan: QuantPlan, rounded=None) -> float:
    """Squared error of the logits on clips that the rounding did not see."""
    model, total = tiny_model(), 0.0
    module = quantise_module(model, plan, rounded)
    for clip in noise_clips(4, seed=9):
        x = torch.from_numpy(model.processor.features(clip))[None]
        with torch.inference_mode():
            total += float((module(x) - model.module(x)).square().sum())
    return total


def test_the_model_says_what_the_rounded_codes_say_and_says_it_better() -> None:
    context, plan = tiny_context(), _plan()
    rounded = round_sites(context, plan)
    assert set(rounded) == {entry.site for entry in plan.sites if entry.bits is not None}
    assert _loss(plan, rounded) < 0.6 * _loss(plan)


def test_packing_keeps_codes_steps_and_bytes() -> None:
    plan = _plan()
    rounded = round_sites(tiny_context(), plan)
    nearest = plan.replace(sites=tuple(entry.replace(rounding="nearest") for entry in plan.sites))
    for ours, theirs in zip(
        lower(tiny_model(), plan, rounded).sites, lower(tiny_model(), nearest).sites, strict=True
    ):
        if not isinstance(ours.weight, PackedTensor):
            continue
        assert isinstance(theirs.weight, PackedTensor)
        assert ours.weight.nbytes == theirs.weight.nbytes
        found = rounded[ours.site.name]
        assert np.array_equal(ours.weight.dequantise(), found.weight().numpy())
        back = ours.rounded()
        assert back is not None
        assert torch.equal(back.weight(), found.weight())


def test_making_good_what_earlier_sites_lost_says_it_better_still() -> None:
    context = tiny_context()
    compensated, plain = (_plan(2, rounding=one) for one in ("compensated", "gptq"))
    assert _loss(compensated, round_sites(context, compensated)) < 0.9 * _loss(
        plain, round_sites(context, plain)
    )


def test_a_site_makes_good_what_sites_of_any_rounding_lost_and_depends_on_no_later_one() -> None:
    context, plan = tiny_context(), _plan(2, rounding="compensated")
    names = [entry.site for entry in plan.sites if entry.bits is not None]
    first, last = names[0], names[-1]
    before = round_sites(context, plan)

    def with_other(name: str, **changes: object) -> QuantPlan:
        sites = (entry.replace(**changes) if entry.site == name else entry for entry in plan.sites)
        return plan.replace(sites=tuple(sites))

    wider = round_sites(context, with_other(last, bits=8))
    assert all(torch.equal(wider[name].codes, before[name].codes) for name in names[:-1])
    exact = round_sites(context, with_other(first, rounding="nearest", bits=8))
    assert first not in exact
    assert not torch.equal(exact[names[1]].codes, before[names[1]].codes)


def test_an_interrupted_rounding_in_order_goes_on_where_it_stopped(tmp_path) -> None:
    context, plan = tiny_context(), _plan(2, rounding="compensated")
    first = round_sites(context, plan)

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "round weights" and done == total // 2:
            raise KeyboardInterrupt

    store = FileStore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        round_sites(PassContext(context.model, context.clips, context.costs, stop), plan, store)
    second = round_sites(context, plan, store)
    assert list(second) == [name for name in first if name in second]
    assert all(torch.equal(first[name].codes, second[name].codes) for name in first)


@pytest.mark.parametrize("rounding", ["gptq", "compensated"])
def test_the_same_codes_whatever_the_threads_and_the_store(rounding: str) -> None:
    plan = _plan(rounding=rounding)
    first = round_sites(tiny_context(), plan)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        second = round_sites(tiny_context(), plan)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(first[name].codes, second[name].codes) for name in first)


@pytest.mark.parametrize("rounding", ["gptq", "compensated"])
def test_a_second_run_takes_every_group_from_the_store(rounding: str, tmp_path) -> None:
    context, plan, store = tiny_context(), _plan(rounding=rounding), FileStore(tmp_path)
    first = round_sites(context, plan, store)
    steps: list[str] = []
    telling = PassContext(
        context.model, context.clips, context.costs, lambda stage, done, total: steps.append(stage)
    )
    second = round_sites(telling, plan, store)
    assert steps == []
    for name, one in first.items():
        assert torch.equal(one.codes, second[name].codes)
        assert torch.equal(one.steps, second[name].steps)
        assert (one.bias is None) == (second[name].bias is None)
    other = PassContext(context.model, noise_clips(seed=4), context.costs, telling.progress)
    round_sites(other, plan, store)
    assert steps


def test_nothing_is_measured_for_a_plan_that_rounds_to_nearest() -> None:
    plan = start_plan(tiny_model(), PackedCosts(), "onnx")
    assert round_sites(PassContext(tiny_model(), (), PackedCosts()), plan) == {}


def test_lowering_refuses_to_guess_codes() -> None:
    with pytest.raises(KeyError):
        lower(tiny_model(), _plan())


def test_a_step_for_a_whole_tensor_is_rounded_to_nearest() -> None:
    plan = _plan(tier="paper")
    roundings = {entry.granularity: entry.rounding for entry in plan.sites if entry.bits is not None}
    assert roundings == {"tensor": "nearest", "channel": "gptq"}
    verify_plan(tiny_model(), plan)
    edited = plan.replace(
        sites=tuple(e.replace(rounding="gptq") if e.granularity == "tensor" else e for e in plan.sites)
    )
    with pytest.raises(InputError, match="use granularity channel"):
        verify_plan(tiny_model(), edited)
