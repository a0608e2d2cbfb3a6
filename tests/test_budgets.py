"""Budgets are ceilings on real files: 200 random ones on the reference model, priced by the real exporter."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bitvox.compile import compile_bundle
from bitvox.errors import RequestError
from bitvox.planning import allocated_plan
from bitvox.progress import no_progress
from bitvox.request import CompileRequest
from bitvox.store import FileStore
from bitvox.voice import Voice, read_voice

SMALLEST, LARGEST = 930_000, 3_400_000
TABLES = 5_000


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> CompileRequest:
    folder = tmp_path_factory.mktemp("voice")
    generator = np.random.default_rng(0)
    for index in range(4):
        samples = 0.1 * generator.standard_normal(16000 + 800 * index)
        soundfile.write(folder / f"{index}.wav", samples.astype(np.float32), 16000)
    return CompileRequest("reference-ctc", audio=folder, method="myqasr")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FileStore:
    return FileStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def voice(request_: CompileRequest, store: FileStore) -> Voice:
    return read_voice(request_, store, no_progress)


def test_200_random_budgets(request_: CompileRequest, voice: Voice, store: FileStore) -> None:
    budgets = sorted(np.random.default_rng(1).integers(SMALLEST, LARGEST, 200).tolist())
    plans = [
        allocated_plan(voice, dataclasses.replace(request_, budget=budget), store, no_progress)
        for budget in budgets
    ]
    # One bit of the largest site; where it is the first at a width, its unpack tables come with it.
    step = max(site.weights for site in voice.model.sites) // 8 + TABLES
    widest = plans[-1].total_bytes
    for budget, plan in zip(budgets, plans, strict=True):
        assert plan.total_bytes <= budget
        assert plan.total_bytes >= min(budget, widest) - step
    sizes = [plan.total_bytes for plan in plans]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) > 50
    again = dataclasses.replace(request_, budget=budgets[77])
    assert allocated_plan(voice, again, store, no_progress) == plans[77]


def test_the_smallest_budget_that_an_error_names_works(
    request_: CompileRequest, voice: Voice, store: FileStore
) -> None:
    with pytest.raises(RequestError) as caught:
        allocated_plan(voice, dataclasses.replace(request_, budget=500_000), store, no_progress)
    smallest = int(str(caught.value).split(" takes ")[1].split()[0])
    enough = dataclasses.replace(request_, budget=smallest)
    assert allocated_plan(voice, enough, store, no_progress).total_bytes <= smallest
    with pytest.raises(RequestError):
        too_little = dataclasses.replace(request_, budget=smallest - 1)
        allocated_plan(voice, too_little, store, no_progress)


def test_two_compiles_give_the_same_bytes_and_no_more_than_planned(
    request_: CompileRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = []
    for name in ("first", "second"):
        monkeypatch.setenv("BITVOX_CACHE", str(tmp_path / f"cache-{name}"))
        report = compile_bundle(dataclasses.replace(request_, budget=1_500_000, out=tmp_path / name))
        assert report.bytes <= 1_500_000
        # What a plan cannot know: digits of calibrated ranges and of the judgement.
        assert 0 <= report.plan.total_bytes - report.bytes < 4000
        digests.append(
            {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in report.out.iterdir()}
        )
    assert digests[0] == digests[1]
