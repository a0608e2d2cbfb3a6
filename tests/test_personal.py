"""`--generic`: what a bundle learns from a voice and from others, and how much of each, told by no label."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bitvox.cli import run
from bitvox.compile import compile_bundle, make_plan
from bitvox.errors import InputError
from bitvox.exporters.bundle import Bundle
from bitvox.personal import SHARES, with_share
from bitvox.request import CompileRequest
from bitvox.store import default_store
from bitvox.voice import read_voice
from support import noise_clips, write_tiny_checkpoint


def _write(folder: Path, count: int, seed: int, scale: float = 1.0) -> Path:
    folder.mkdir()
    for number, clip in enumerate(noise_clips(count, seed=seed)):
        soundfile.write(folder / f"{number}.wav", (scale * clip).astype(np.float32), 16000)
    return folder


@pytest.fixture
def request_(tmp_path: Path) -> CompileRequest:
    return CompileRequest(
        str(write_tiny_checkpoint(tmp_path / "tiny")),
        audio=_write(tmp_path / "own", 6, seed=0),
        generic=_write(tmp_path / "generic", 3, seed=1, scale=3.0),
        method="auto",
        effort="quick",
        budget=60_000,
        activations="dynamic",
    )


def test_a_mixed_bundle_says_so(request_: CompileRequest, tmp_path: Path) -> None:
    shared = replace(request_, own_share=0.5)
    report = compile_bundle(replace(shared, activations="static", out=tmp_path / "out"))
    assert "own_share=0.5" in report.plan.method
    assert report.bytes <= request_.budget
    manifest = Bundle.open(report.out).manifest
    assert len(manifest.calibrated_on) == 5 + 3  # a quarter of six, rounded down, judges
    alone = make_plan(replace(request_, generic=None))
    mixed, all_own = make_plan(shared), make_plan(replace(request_, own_share=1.0))
    assert [entry.costs for entry in all_own.sites] == [entry.costs for entry in alone.sites]
    assert [entry.costs for entry in mixed.sites] != [entry.costs for entry in alone.sites]


def test_the_share_is_chosen_on_clips_that_judge_nothing(request_: CompileRequest) -> None:
    store = default_store()
    voice = read_voice(request_, store, lambda *step: None)
    stages: list[str] = []
    chosen = with_share(voice, request_, store, lambda stage, *step: stages.append(stage))
    assert chosen.share in SHARES
    assert set(stages) == {"choose share"}
    assert (chosen.calibration, chosen.judging) == (voice.calibration, voice.judging)
    few = with_share(replace(voice, calibration=voice.calibration[:3]), request_, store)
    assert few.share == 0.5


def test_what_cannot_be_mixed_is_refused(
    request_: CompileRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="own_share: nothing to share with"):
        replace(request_, generic=None, own_share=0.5)
    with pytest.raises(InputError, match="own_share 2"):
        replace(request_, own_share=2)
    with pytest.raises(InputError, match="holds the voice's own recordings alone"):
        make_plan(replace(request_, generic=request_.audio))
    words = ["plan", str(request_.model), "--audio", str(request_.audio), "--budget", "60kB"]
    assert run([*words, "--own-share", "0.5"]) == 2
    assert "nothing to share with" in capsys.readouterr().err
