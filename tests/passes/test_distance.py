"""Sensitivity as the distance that the model's output moves."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from bitvox.compiler.passes.distance import BITS, DISTANCES, MeasureDistancePass
from bitvox.compiler.passes.plan import QuantPlan
from bitvox.compiler.passes.quantizer import quantise_module
from bitvox.compiler.passes.start import start_plan
from bitvox.errors import InputError
from support import tiny_context


def _by_hand(name: str, wanted: np.ndarray, found: np.ndarray) -> float:
    """Of probabilities [frames, outputs]."""
    moved = wanted - found
    frames = {
        "kl": (wanted * np.log(wanted / found)).sum(axis=1),
        "l1": np.abs(moved).sum(axis=1),
        "l2": np.sqrt((moved**2).sum(axis=1)),
        "frobenius": np.sqrt((moved**2).sum()),
    }
    return float(np.mean(frames[name]))


@torch.inference_mode()
def _probabilities(module: torch.nn.Module) -> np.ndarray:
    context = tiny_context()
    logits = [module(*context.model.inputs(clip))[0] for clip in context.clips]
    return torch.cat(logits).double().softmax(dim=-1).numpy()


def _alone(plan: QuantPlan, name: str) -> QuantPlan:
    sites = (
        entry.replace(bits=BITS if entry.site == name else None, activations="float") for entry in plan.sites
    )
    return plan.replace(sites=tuple(sites))


@pytest.mark.parametrize("tier", ["default", "paper"])
@pytest.mark.parametrize("distance", list(DISTANCES))
def test_a_score_is_the_distance_with_that_site_alone_at_4_bits(distance: str, tier: str) -> None:
    context = tiny_context()
    plan = start_plan(context.model, context.costs, "onnx", tier)
    scored = MeasureDistancePass(distance).run(context, plan)
    assert scored.method == f"score={distance}"
    full = _probabilities(context.model.module)
    name = "wav2vec2.encoder.layers.1.feed_forward.output_dense"
    changed = _probabilities(quantise_module(context.model, _alone(plan, name)))
    # The sites that the comparison keeps at full precision are stored in float16.
    assert scored.site(name).score == pytest.approx(_by_hand(distance, full, changed), rel=0.05)
    for entry in scored.sites:
        assert entry.score is not None
        assert (entry.score > 0) == (entry.bits is not None)


def test_the_model_is_left_as_it_was_and_bad_requests_are_one_line() -> None:
    context = tiny_context()
    plan = start_plan(context.model, context.costs, "onnx")
    before = context.model.logits(context.clips[0])
    assert MeasureDistancePass("kl").run(context, plan) == MeasureDistancePass("kl").run(context, plan)
    np.testing.assert_array_equal(context.model.logits(context.clips[0]), before)
    with pytest.raises(InputError, match="distance cosine: unknown; use one of kl, l1, l2, frobenius"):
        MeasureDistancePass("cosine")
    with pytest.raises(InputError, match="no clip to calibrate with"):
        MeasureDistancePass("kl").run(dataclasses.replace(context, clips=()), plan)
