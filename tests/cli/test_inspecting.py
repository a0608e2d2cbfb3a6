"""`inspect`: a ledger that adds up."""

from __future__ import annotations

from pathlib import Path

from command_line import Captured, document, one_line
from tone_bundle import tone_plan

from bitvox.cli import run
from bitvox.exporters.bundle import Bundle


def test_inspect_a_bundle_adds_up(bundle: Path, capsys: Captured) -> None:
    assert run(["inspect", str(bundle)]) == 0
    text = capsys.readouterr().out
    size = Bundle.open(bundle).bytes
    assert f"total {size} bytes of a budget of 100000" in text
    assert "the only one" in text
    found = document(capsys, ["inspect", str(bundle)])
    assert found["total"] == size == sum(found["files"].values())
    assert found["total"] == sum(row["bytes"] for row in found["sites"] + found["rest"])
    assert found["strip"] == "█"


def test_inspect_a_plan(tmp_path: Path, capsys: Captured) -> None:
    from bitvox.compiler.passes.plan_json import plan_to_json

    plan = tone_plan()
    sites = tuple(plan.sites[0].replace(site=f"s{bits}", bits=bits) for bits in (2, 3, None, 8))
    (tmp_path / "plan.json").write_text(plan_to_json(plan.replace(sites=sites)))
    found = document(capsys, ["inspect", str(tmp_path / "plan.json")])
    assert found["kind"] == "plan"
    assert found["strip"] == "▂▃F█"
    assert found["total"] == 2000 + 4 * 9000
    (tmp_path / "bad.json").write_text("{}")
    assert "not a plan" in one_line(capsys, ["inspect", str(tmp_path / "bad.json")], 2)
