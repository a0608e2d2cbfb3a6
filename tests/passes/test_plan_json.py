import json

import pytest

from bitvox.compiler.passes.calibrate import CalibratePass
from bitvox.compiler.passes.plan import QuantPlan, Range
from bitvox.compiler.passes.plan_json import plan_from_json, plan_to_json
from bitvox.compiler.passes.sensitivity import MeasureSensitivityPass
from bitvox.compiler.passes.start import start_plan
from bitvox.compiler.passes.verify import verify_plan
from bitvox.errors import InputError
from support import PackedCosts, tiny_context, tiny_model


def _finished() -> QuantPlan:
    context = tiny_context()
    plan = MeasureSensitivityPass().run(context, start_plan(context.model, PackedCosts(), "onnx"))
    return CalibratePass().run(context, plan.replace(budget=10**6))


def test_the_round_trip_is_exact_and_the_text_is_stable() -> None:
    plan = _finished()
    text = plan_to_json(plan)
    assert plan_from_json(text, "plan.json") == plan
    assert plan_to_json(plan_from_json(text, "plan.json")) == text
    assert '"granularity": "channel"' not in text
    assert len(text.splitlines()) == len(json.loads(text)["sites"]) + len(json.loads(text)) + 3


def test_an_empty_plan_is_json_too() -> None:
    plan = QuantPlan("m", "f", "onnx", "", None, 0, ())
    assert plan_from_json(plan_to_json(plan), "plan.json") == plan


def _edited(edit) -> str:
    document = json.loads(plan_to_json(_finished()))
    edit(document)
    return json.dumps(document)


@pytest.mark.parametrize(
    "edit,message",
    [
        (lambda d: d["sites"][1].update(bits=9), "bits: 9 is no width; use 2 to 8, or null"),
        (lambda d: d["sites"][1].update(bits=1), "bits: 1 is no width"),
        (lambda d: d["sites"][1].update(bits=4.5), "bits: 4.5 is no width"),
        (lambda d: d["sites"][1].update(bits="4"), "bits: '4' is no width"),
        (lambda d: d["sites"][1].pop("bits"), "bits: is missing"),
        (lambda d: d["sites"][1].update(width=3), "width: no such field"),
        (lambda d: d["sites"][1].update(clip=-1.0), "clip: -1.0: "),
        (lambda d: d["sites"][1].update(clip=float("nan")), "NaN is not a number of a plan"),
        (lambda d: d["sites"][1].update(stored_bytes=-5), "stored_bytes: -5: "),
        (lambda d: d["sites"][1].update(input_range=[1.0]), "input_range"),
        (
            lambda d: d["sites"][1].update(input_range=[1.0, 0.0]),
            "input_range: low 1.0 is not below high 0.0",
        ),
        (lambda d: d["sites"][1].update(activations="int4"), "activations: 'int4': "),
        (lambda d: d["sites"].append(d["sites"][1]), "has two entries"),
        (lambda d: d["sites"].append(3), r"sites\[\d+\]: 3: "),
        (lambda d: d["sites"][1].update(site=""), "site: ''"),
        (lambda d: d.update(plan_format=2), "plan format 2 is newer"),
        (lambda d: d.update(plan_format="one"), "plan_format: 'one': "),
        (lambda d: d.pop("plan_format"), "not a plan"),
        (lambda d: d.pop("sites"), "sites: is missing"),
        (lambda d: d.update(budget=0), "budget: 0: "),
    ],
)
def test_a_broken_file_is_one_line_that_names_it(edit, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        plan_from_json(_edited(edit), "my/plan.json")
    assert str(caught.value).startswith("my/plan.json: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"sites": []}', "[" * 100_000, '{"plan_format": 1e999}']
)
def test_what_is_no_plan_is_one_line(text: str) -> None:
    with pytest.raises(InputError, match=r"^p: ") as caught:
        plan_from_json(text, "p")
    assert "\n" not in str(caught.value)


def _with(plan: QuantPlan, index: int, **changes: object) -> QuantPlan:
    sites = list(plan.sites)
    sites[index] = sites[index].replace(**changes)
    return plan.replace(sites=tuple(sites))


def test_verify_accepts_what_the_passes_made() -> None:
    verify_plan(tiny_model(), _finished(), ("scores", "widths", "ranges"))


@pytest.mark.parametrize(
    "change,facts,message",
    [
        (lambda p: p.replace(fingerprint="0" * 64), (), "is another one"),
        (lambda p: p.replace(sites=p.sites[:-1]), (), "no entry for site lm_head"),
        (lambda p: p.replace(sites=p.sites[::-1]), (), "out of order"),
        (lambda p: p.replace(sites=(*p.sites, p.sites[0])), (), "planned 2 times"),
        (lambda p: _with(p, 1, site="nowhere"), (), "nowhere: .* has no such site"),
        (lambda p: _with(p, 1, bits=9), (), "bits 9 is no width"),
        (lambda p: _with(p, 1, activations="dynamic"), (), "takes activations static or float"),
        (lambda p: _with(p, 1, bits=None), (), "full precision needs activations float"),
        (lambda p: _with(p, 1, clip=0.0), (), "clip 0.0 is not in"),
        (lambda p: _with(p, 1, score=float("nan")), (), "score nan is not finite"),
        (lambda p: _with(p, 1, stored_bytes=-1), (), "stored_bytes -1 is negative"),
        (lambda p: _with(p, 1, input_range=Range(1.0, 0.0)), (), "needs two finite ends"),
        (lambda p: _with(p, 5, bits=5), (), "they read one input and must agree"),
        (lambda p: _with(p, 1, score=None), ("scores",), "no score"),
        (lambda p: _with(p, 1, input_range=None), ("ranges",), "need an input_range"),
        (lambda p: _with(p, 1, output_range=None), ("ranges",), "needs an output_range"),
        (lambda p: p.replace(budget=None), ("widths",), "no budget"),
        (lambda p: p.replace(budget=10), ("widths",), "exceed its budget of 10"),
    ],
)
def test_verify_names_the_site_and_what_is_wrong(change, facts, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        verify_plan(tiny_model(), change(_finished()), facts)
    assert "\n" not in str(caught.value)
