import logging
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile

import bitvox.compile as front
from bitvox.effort import EFFORTS
from bitvox.estimate import Estimate, estimate, try_out
from bitvox.progress import no_progress, warnings_on_stderr
from bitvox.request import CompileRequest
from bitvox.store import FileStore
from bitvox.voice import Voice, read_voice
from support import noise_clips, write_tiny_checkpoint


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> CompileRequest:
    folder = tmp_path_factory.mktemp("estimate")
    (folder / "voice").mkdir()
    for number, samples in enumerate(noise_clips(8)):
        soundfile.write(folder / "voice" / f"{number}.wav", samples, 16000)
    checkpoint = write_tiny_checkpoint(folder / "checkpoint")
    return CompileRequest(str(checkpoint), audio=folder / "voice", budget=40_000)


@pytest.fixture(scope="module")
def voice(request_: CompileRequest, tmp_path_factory: pytest.TempPathFactory) -> Voice:
    return read_voice(request_, FileStore(tmp_path_factory.mktemp("store")), no_progress)


def test_more_effort_more_clips_and_fewer_cores_take_longer(voice: Voice) -> None:
    trial = try_out(voice)
    assert trial.forward > 0
    assert set(trial.frames) == {site.share_group for site in voice.model.sites}
    quick, normal, most = (estimate(voice, EFFORTS[one], trial, 1) for one in ("quick", "normal", "max"))
    assert quick.seconds < normal.seconds < most.seconds
    assert estimate(voice, EFFORTS["max"], trial, 4).seconds == pytest.approx(most.seconds / 4)
    fewer = replace(voice, calibration=voice.calibration[:1])
    less = estimate(fewer, EFFORTS["max"], trial, 1)
    assert less.seconds < 0.7 * most.seconds
    assert less.memory < most.memory


def test_it_is_told_before_work_begins_and_only_of_auto(
    request_: CompileRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("BITVOX_CACHE", str(tmp_path / "cache"))
    with warnings_on_stderr():
        front.make_plan(replace(request_, method="myqasr"))
        assert capsys.readouterr().err == ""
        front.make_plan(
            replace(request_, effort="quick"), lambda *_: logging.getLogger("bitvox").warning("work")
        )
    first, *others = [line for line in capsys.readouterr().err.splitlines() if "work" not in line]
    assert first.startswith("bitvox: effort quick: about ")
    assert others == []


def test_words_of_an_estimate() -> None:
    assert Estimate(0.2, 10**9).line() == "about 1 s and 1.00 GB of memory"
    assert Estimate(200, 2 * 10**9).line() == "about 3 min and 2.00 GB of memory"
