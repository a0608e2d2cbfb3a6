"""Committed results are replaced by the whole experiment only, and say what they were measured at."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bitvox.benchmarks.experiments import registry, reproduce
from bitvox.benchmarks.experiments.experiment import Experiment, Options
from bitvox.benchmarks.experiments.figures import Line, Panel, draw
from bitvox.benchmarks.experiments.results import Cell, Document, Notebook, Provenance, Rate, Schema
from bitvox.benchmarks.experiments.tables import origin
from bitvox.cli import run
from bitvox.progress import Progress


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Options]:
    """The runs that reach an experiment, which measures one cell a run."""
    asked: list[Options] = []

    def measure(options: Options, progress: Progress) -> Document[Cell, Schema]:
        asked.append(options)
        notebook = Notebook(options.out, Document[Cell, Schema], "x", _FOUND)
        notebook.add(Cell(key=str(len(asked)), commit="c"))
        return notebook.write([str(len(asked))])

    trial = Experiment("two-fold", "nothing", measure, lambda path: f"## {path.stem}", splits=("dev", "test"))
    bare = Experiment("bare", "nothing", measure, lambda path: "## bare", splits=(), takes=frozenset())
    monkeypatch.setattr(registry, "EXPERIMENTS", (trial, bare))
    return asked


_FOUND = Provenance(
    command="c",
    commit="last",
    versions={},
    machine={"cpu": "x", "cores": "2"},
    model="m",
    fingerprint="f",
    data={},
)


def test_a_run_writes_its_files_and_logs_every_touch_of_test(
    tmp_path: Path,
    measured: list[Options],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(reproduce, "RESULTS", tmp_path)
    assert run(["reproduce", "two-fold"]) == 0
    assert capsys.readouterr().out == "## two_fold_dev\n"
    assert (tmp_path / "two_fold_dev.md").read_text() == "## two_fold_dev\n"
    log = tmp_path / "test_log.csv"
    assert not log.exists()
    for _ in range(2):
        assert run(["reproduce", "two-fold", "--split", "test", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["measured"] == 1
    assert [options.arguments for options in measured] == [(), ("--split", "test"), ("--split", "test")]
    assert len(log.read_text().splitlines()) == 3
    assert "two_fold_test.json" in log.read_text()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["two-fold", "--limit", "2"], "--limit: a run with it would replace two_fold_dev.json"),
        (["two-fold", "--model", "x"], "--model: a run with it would replace"),
        (["bare", "--limit", "2"], "--limit: bare has no such choice"),
        (["bare", "--split", "dev"], "--split dev: bare is judged on no recordings"),
        (["gone"], "experiment 'gone': unknown; there are two-fold, bare"),
    ],
)
def test_a_run_that_would_mislead_is_refused(
    words: list[str], complaint: str, measured: list[Options], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["reproduce", *words]) == 2
    assert complaint in capsys.readouterr().err
    assert not measured


def test_a_trial_names_a_file_of_its_own(tmp_path: Path, measured: list[Options]) -> None:
    assert run(["reproduce", "two-fold", "--limit", "2", f"--out={tmp_path / 'trial.json'}"]) == 0
    assert (measured[0].limit, measured[0].out) == (2, tmp_path / "trial.json")
    assert measured[0].arguments == ("--limit", "2")


def test_every_experiment_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["reproduce"]) == 0
    listed = capsys.readouterr().out
    assert all(f"\n{one.name} " in listed for one in registry.EXPERIMENTS)
    stems = [stem for one in registry.EXPERIMENTS for stem in one.stems()]
    assert len(stems) == len(set(stems))


def test_figures_are_the_same_bytes_for_the_same_numbers(tmp_path: Path) -> None:
    rates = (Rate(percent=1.0, low=0.5, high=2.0), Rate(percent=None, low=None, high=None))
    panel = Panel("title", "bits", "points", (Line("one", (2.0, 3.0), rates),), zero=True)
    for name in ("first.svg", "second.svg"):
        draw([panel], tmp_path / name)
    first, second = ((tmp_path / name).read_text() for name in ("first.svg", "second.svg"))
    assert first == second
    assert ">title<" in first


def test_names_stand_one_below_the_other_and_no_axes_are_empty(tmp_path: Path) -> None:
    rate = Rate(percent=1.0, low=0.5, high=2.0)
    names = tuple(f"a rather long name {number}" for number in range(12))
    places = tuple(map(float, range(12)))
    panel = Panel("title", "", "points", (Line("one", places, (rate,) * 12),), ticks=names)
    draw([panel] * 3, tmp_path / "figure.svg")
    text = (tmp_path / "figure.svg").read_text()
    at = {name: set(re.findall(rf'x="([\d.]+)" y="([\d.]+)"[^>]*>{name}<', text)) for name in names}
    assert all(len(found) == 3 for found in at.values())
    assert len({x for found in at.values() for x, _ in found}) == 2  # two columns, in which the names end
    assert text.count(">points<") == 3
    assert text.count('id="matplotlib.axis_') == 6  # of a fourth pair there is nothing to see


def test_every_commit_of_the_rows_is_named() -> None:
    rows = [Cell(key="1", commit="aaa"), Cell(key="2", commit="bbb"), Cell(key="3", commit="aaa")]
    assert "Commits aaa and bbb;" in origin(_FOUND, rows)
    assert "Commit aaa;" in origin(_FOUND, rows[:1])
