"""Calibration kept per unit gives what calibration of the whole plan gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitvox.benchmarks.experiments import unit_calibration
from bitvox.benchmarks.experiments.unit_calibration import calibrate_by_unit
from bitvox.compiler.passes.calibrate import CalibratePass
from bitvox.compiler.passes.plan import QuantPlan
from bitvox.compiler.passes.start import start_plan
from bitvox.request import Calibration
from bitvox.store import FileStore
from support import tiny_context


def mixed_plan(narrow: int) -> QuantPlan:
    """Every other share group at `narrow` bits, the others at 8."""
    context = tiny_context()
    plan = start_plan(context.model, context.costs, "onnx")
    chosen = {site.name for group in list(context.model.share_groups())[::2] for site in group}
    sites = (
        entry.replace(bits=narrow) if entry.bits is not None and entry.site in chosen else entry
        for entry in plan.sites
    )
    return plan.replace(sites=tuple(sites))


@pytest.mark.parametrize("method", ["cosine", "hessian"])
def test_is_the_whole_calibration(
    method: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, store = tiny_context(), FileStore(tmp_path)
    for narrow in (3, 4):
        plan = mixed_plan(narrow)
        expected = CalibratePass(method, 0).run(context, plan)
        assert calibrate_by_unit(context, plan, method, 0, store) == expected
    monkeypatch.delattr(unit_calibration, "CalibratePass")
    assert calibrate_by_unit(context, mixed_plan(4), method, 0, store) == expected
