"""Methods at equal bytes: every configuration once, budgets kept, nothing measured twice."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bitvox.benchmarks.experiments import real_speech, report_real_speech
from bitvox.benchmarks.experiments.cells import Worker, Workplace
from bitvox.benchmarks.experiments.real_rows import SpeechDocument
from bitvox.benchmarks.experiments.results import read_document
from bitvox.benchmarks.experiments.speech import draw_clips, gather, read_split, stratified
from bitvox.planning import plan_for
from bitvox.progress import no_progress
from bitvox.request import CompileRequest
from bitvox.store import FileStore


class _Here(Executor):
    """Runs a cell when it is submitted, in this process, and counts."""

    def __init__(self, worker: Worker, stop_after: int) -> None:
        self.worker, self.left, self.count = worker, stop_after, 0

    def submit(self, run: Callable[..., Any], *words: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if self.left == 0:
            future.set_exception(KeyboardInterrupt())
            return future
        self.left -= 1
        self.count += 1
        request = words[0]
        found = self.worker.full_precision() if request is None else self.worker.compiled(request)
        future.set_result(found)
        return future


@pytest.fixture
def setting(checkpoint: Path, speech: Path) -> real_speech.Setting:
    calibration = tuple(draw_clips(read_split(speech, "an4", "train"), 4, seed=0))
    tests = {"an4": stratified(read_split(speech, "an4", "test"), 2, seed=0)}
    return real_speech.Setting(str(checkpoint), calibration, tests, widths=(4, 3), half_way=(3.5,))


def test_stops_and_goes_on(
    tmp_path: Path, setting: real_speech.Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "real_speech.json"
    used: list[_Here] = []
    stop_after = 1

    @contextlib.contextmanager
    def workers(count: int, place: Workplace) -> Iterator[Executor]:
        used.append(_Here(Worker(place, FileStore(tmp_path / "store")), stop_after))
        yield used[-1]

    monkeypatch.setattr(real_speech, "_workers", workers)
    monkeypatch.setattr(real_speech, "ORDERS", ("descending",))
    with pytest.raises(KeyboardInterrupt):
        real_speech.real_speech(out, setting)
    first = read_document(out, SpeechDocument).rows
    assert [row.method for row in first] == ["full precision"]

    stop_after = 99
    document = real_speech.real_speech(out, setting)
    assert document.rows[0] == first[0]
    made = [row for row in document.rows if not row.unreachable]
    assert used[1].count == len(document.rows) - 1 == 2 + 2 * (3 * 2 + 1)
    assert all(row.bytes <= (row.budget or 0) for row in made[1:])
    assert {row.bytes for row in made if row.method == "uniform"} < {row.budget for row in made}
    assert all(row.scores["an4"].words.length == 6 for row in made)
    for row in document.rows:
        assert row.unreachable is None or "smallest" in row.unreachable
    assert "Of " in report_real_speech.section(out)

    real_speech.real_speech(out, setting)
    assert used[2].count == len(document.rows) - len(made)


def test_a_cell_follows_the_plan_of_the_product(tmp_path: Path, setting: real_speech.Setting) -> None:
    audio = gather(setting.calibration, tmp_path / "clips")
    worker = Worker(Workplace(setting.model, audio, {}), FileStore(tmp_path / "store"))
    request = CompileRequest(setting.model, audio, budget=1 << 40, method="myqasr", calibration="cosine")
    for budget in (1 << 40, plan_for(worker.voice, request, worker.store, no_progress).total_bytes - 2000):
        asked = replace(request, budget=budget)
        alone = plan_for(worker.voice, asked, FileStore(tmp_path / str(budget)), no_progress)
        assert worker._plan(asked) == alone


def test_draws_are_fixed_and_fair(speech: Path) -> None:
    test = read_split(speech, "an4", "test")
    drawn = stratified(test, 4, seed=1)
    assert drawn == stratified(test, 4, seed=1)
    assert sorted(utterance.speaker or "" for utterance in drawn.utterances) == sorted(
        2 * ["test-ann", "test-bob"]
    )
    assert stratified(test, None, seed=1) == test
