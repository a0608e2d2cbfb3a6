import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from bitvox import code_version
from bitvox.compiler.passes.allocate import AllocateMyQASRPass, bytes_at_width
from bitvox.compiler.passes.base import Pass, PassContext, Sequential
from bitvox.compiler.passes.calibrate import CalibratePass
from bitvox.compiler.passes.conv_ranges import FitConvRangesPass
from bitvox.compiler.passes.plan import QuantPlan
from bitvox.compiler.passes.sensitivity import MeasureSensitivityPass
from bitvox.compiler.passes.start import start_plan
from bitvox.errors import InputError
from support import PackedCosts, noise_clips, tiny_context


class DictStore(dict):
    def put(self, key: str, value: str) -> None:
        self[key] = value


def _start() -> tuple[PassContext, QuantPlan, Sequential]:
    context = tiny_context()
    plan = start_plan(context.model, PackedCosts(), "onnx")
    budget = bytes_at_width(context, plan, 4)
    return context, plan, Sequential((MeasureSensitivityPass(), AllocateMyQASRPass(budget), CalibratePass()))


def _counting(context: PassContext, steps: list[tuple[str, int, int]]) -> PassContext:
    return dataclasses.replace(context, progress=lambda *step: steps.append(step))


def test_the_whole_sequence_gives_a_complete_plan() -> None:
    context, plan, passes = _start()
    result = passes.run(context, plan)
    assert result.total_bytes <= result.budget
    assert result.method == "score=median order=ascending calibration=min-max"
    assert all(e.input_range for e in result.sites if e.activations == "static")


def test_a_second_run_takes_everything_from_the_store() -> None:
    context, plan, passes = _start()
    store, steps = DictStore(), []
    first = passes.run(context, plan, store)
    assert len(store) == 3
    assert passes.run(_counting(context, steps), plan, store) == first
    assert steps == []


def test_an_interrupted_run_resumes_after_the_last_finished_pass() -> None:
    context, plan, passes = _start()
    store, steps = DictStore(), []

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "calibrate":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        passes.run(dataclasses.replace(context, progress=stop), plan, store)
    assert len(store) == 2
    assert not any(context.model.site_module(site)._forward_hooks for site in context.model.sites)
    resumed = passes.run(_counting(context, steps), plan, store)
    assert {stage for stage, _, _ in steps} == {"calibrate"}
    assert resumed == passes.run(context, plan)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: dataclasses.replace(c, clips=noise_clips(seed=1)),
        lambda c: dataclasses.replace(c, model=dataclasses.replace(c.model, fingerprint="0" * 64)),
    ],
)
def test_other_clips_or_models_share_nothing(change) -> None:
    context, plan, passes = _start()
    store = DictStore()
    passes.run(context, plan, store)
    other = change(context)
    passes.run(other, start_plan(other.model, other.costs, "onnx"), store)
    assert len(store) == 6


def test_what_counts_no_bytes_serves_every_target() -> None:
    context, plan, passes = _start()
    store, steps = DictStore(), []
    passes.run(context, plan, store)
    other = dataclasses.replace(_counting(context, steps), costs=PackedCosts(fixed=999))
    start = start_plan(other.model, other.costs, "executorch", kernels="packed")
    found = passes.run(other, start, store)
    assert {stage for stage, _, _ in steps} == {"calibrate"}
    assert len(store) == 5
    assert found == passes.run(other, start)
    assert (found.target, found.kernels, found.fixed_bytes) == ("executorch", "packed", 999)


def test_a_pass_that_says_it_counts_no_bytes_is_held_to_it() -> None:
    context, plan, _ = _start()
    step = AllocateMyQASRPass(10**6, "shuffled")
    assert step.counts_bytes
    with pytest.raises(TypeError, match="pass allocate-myqasr: counts bytes, which it says it does not"):
        Sequential((_Silent(step),)).run(context, plan)


def test_a_damaged_entry_is_computed_again() -> None:
    context, plan, passes = _start()
    store = DictStore()
    first = passes.run(context, plan, store)
    for key in store:
        store[key] = "{"
    assert passes.run(context, plan, store) == first


def test_contracts_are_checked_before_any_work() -> None:
    context, plan, _ = _start()
    steps: list[tuple[str, int, int]] = []
    with pytest.raises(
        InputError, match="pass allocate-myqasr: needs scores, which no pass before it provides"
    ):
        Sequential((AllocateMyQASRPass(10**6),)).run(context, plan)
    with pytest.raises(InputError, match="pass calibrate: needs widths"):
        Sequential((MeasureSensitivityPass(), CalibratePass())).run(_counting(context, steps), plan)
    assert steps == []


def test_a_finished_plan_can_be_calibrated_again() -> None:
    context, plan, passes = _start()
    finished = passes.run(context, plan)
    again = Sequential((CalibratePass("cosine"),)).run(context, finished)
    assert [e.bits for e in again.sites] == [e.bits for e in finished.sites]
    assert again.method.endswith("calibration=cosine")


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@dataclasses.dataclass(frozen=True)
class _Summing:
    """Scores every site with a sum whose last digits depend on how many threads share it."""

    name: ClassVar[str] = "summing"
    counts_bytes: ClassVar[bool] = False
    requires: ClassVar[frozenset[str]] = frozenset()
    ensures: ClassVar[frozenset[str]] = frozenset()

    def run(self, context: PassContext, plan: QuantPlan) -> QuantPlan:
        values = torch.linspace(0, 1, 5_000_001).square().sin()
        return plan.replace(sites=tuple(entry.replace(score=float(values.sum())) for entry in plan.sites))


@dataclasses.dataclass(frozen=True)
class _Silent:
    """A pass that does not say that it counts bytes."""

    step: Pass
    counts_bytes: ClassVar[bool] = False
    requires: ClassVar[frozenset[str]] = frozenset()
    ensures: ClassVar[frozenset[str]] = frozenset()

    @property
    def name(self) -> str:
        return self.step.name

    def run(self, context: PassContext, plan: QuantPlan) -> QuantPlan:
        return self.step.run(context, plan)


def test_a_result_does_not_depend_on_the_number_of_threads(threads: None) -> None:
    context, plan, _ = _start()
    results, alone = [], []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        alone.append(_Summing().run(context, plan))
        results.append(Sequential((_Summing(),)).run(context, plan))
        assert torch.get_num_threads() == count
    assert alone[0] != alone[1]
    assert results[0] == results[1] == results[2]


def test_convolution_ranges_fit_alike_on_many_threads(threads: None) -> None:
    context, plan, passes = _start()
    calibrated = passes.run(context, plan)
    results = []
    for count in (1, 3):
        torch.set_num_threads(count)
        results.append(Sequential((FitConvRangesPass(),)).run(context, calibrated))
    assert results[0] == results[1]


def test_other_code_shares_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A version number stays the same while one works on it: entries are kept under the source."""
    context, plan, passes = _start()
    store = DictStore()
    passes.run(context, plan, store)
    changed = tmp_path / "changed.py"
    changed.write_text("# another pass\n")
    monkeypatch.setattr(code_version, "_sources", lambda: iter([("bitvox.compiler/changed.py", changed)]))
    code_version.code_version.cache_clear()
    try:
        passes.run(context, plan, store)
    finally:
        code_version.code_version.cache_clear()
    assert len(store) == 6


def test_the_code_is_every_module_of_the_rooms() -> None:
    names = {name for name, _ in code_version._sources()}
    assert {"bitvox.compiler/passes/base.py", "bitvox.exporters/onnx/forms.py"} <= names
    assert any(name.startswith("bitvox.compiler/passes/_rounding.") for name in names)
