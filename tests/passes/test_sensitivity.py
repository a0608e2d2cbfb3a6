import dataclasses

import pytest
import torch

from bitvox.compiler.passes.observers import watching
from bitvox.compiler.passes.sensitivity import MeasureSensitivityPass
from bitvox.compiler.passes.start import start_plan
from bitvox.compiler.passes.streaming_median import RELATIVE_ERROR
from bitvox.errors import InputError
from support import PackedCosts, tiny_context


@torch.inference_mode()
def _outputs_of_all_clips() -> dict[str, torch.Tensor]:
    context = tiny_context()
    kept: dict[str, list[torch.Tensor]] = {}
    with watching(context.model, context.model.sites, lambda s, x, y: kept.setdefault(s.name, []).append(y)):
        for clip in context.clips:
            context.model.logits(clip)
    return {name: torch.cat([part.flatten() for part in parts]) for name, parts in kept.items()}


def test_score_is_the_median_of_the_absolute_output_pooled_over_everything() -> None:
    context = tiny_context()
    plan = MeasureSensitivityPass().run(context, start_plan(context.model, PackedCosts(), "onnx"))
    for name, values in _outputs_of_all_clips().items():
        exact = float(values.abs().median())
        assert plan.site(name).score == pytest.approx(exact, rel=1.01 * RELATIVE_ERROR)
    assert plan.method == "score=median"


def test_one_forward_pass_per_clip_and_no_hook_left() -> None:
    context = tiny_context()
    calls: list[int] = []
    handle = context.model.module.register_forward_hook(lambda *_: calls.append(1))
    told: list[tuple[str, int, int]] = []
    watched = dataclasses.replace(context, progress=lambda *step: told.append(step))
    MeasureSensitivityPass("mean").run(watched, start_plan(context.model, PackedCosts(), "onnx"))
    handle.remove()
    assert len(calls) == len(context.clips)
    assert told[-1] == ("measure sensitivity", 3, 3)
    assert not any(context.model.site_module(site)._forward_hooks for site in context.model.sites)


def test_other_reductions_give_other_scores() -> None:
    context = tiny_context()
    start = start_plan(context.model, PackedCosts(), "onnx")
    values = _outputs_of_all_clips()
    for reduction, exact in (("mean", lambda v: v.abs().mean()), ("std", lambda v: v.std(correction=0))):
        plan = MeasureSensitivityPass(reduction).run(context, start)
        for name, output in values.items():
            assert plan.site(name).score == pytest.approx(float(exact(output)), rel=1e-4)


def test_bad_requests_are_one_line() -> None:
    with pytest.raises(InputError, match="reduction mode: unknown; use one of median, mean"):
        MeasureSensitivityPass("mode")
    context = dataclasses.replace(tiny_context(), clips=())
    with pytest.raises(InputError, match="no clip to calibrate with"):
        MeasureSensitivityPass().run(context, start_plan(context.model, PackedCosts(), "onnx"))
