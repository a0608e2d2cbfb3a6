"""The main job from Python on a tiny checkpoint: what is written, and what is not when something fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import soundfile

from bitvox import compile as front
from bitvox import request
from bitvox.compiler.lowering.header import HEADER_BYTES
from bitvox.compiler.passes import allocate
from bitvox.compiler.passes.distance import DISTANCES
from bitvox.compiler.passes.plan_json import plan_to_json
from bitvox.compiler.passes.streaming_median import REDUCTIONS
from bitvox.errors import InputError, RequestError
from bitvox.exporters.manifest import FileEntry, Manifest
from bitvox.exporters.targets import TARGETS
from bitvox.exporters.verify import verify
from bitvox.request import CompileRequest
from support import noise_clips, write_tiny_checkpoint


@pytest.fixture
def request_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CompileRequest:
    monkeypatch.setenv("BITVOX_CACHE", str(tmp_path / "cache"))
    voice = tmp_path / "voice"
    voice.mkdir()
    for number, samples in enumerate(noise_clips(4)):
        soundfile.write(voice / f"{number}.wav", samples, 16000)
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint")
    return CompileRequest(str(checkpoint), audio=voice, budget=10**6, out=tmp_path / "out")


def test_a_bundle_does_not_appear_when_the_report_fails(
    request_: CompileRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*words: object) -> float:
        raise ZeroDivisionError

    monkeypatch.setattr(front, "paper_bytes", broken)
    with pytest.raises(ZeroDivisionError):
        front.compile_bundle(request_)
    assert request_.out is not None
    assert not request_.out.exists()


def test_a_sweep_goes_on_after_a_budget_that_cannot_be_met(request_: CompileRequest) -> None:
    found = front.sweep(request_, [1000, 10**6])
    (report,) = found.reports
    assert request_.out is not None
    assert report.out == request_.out / "1000000"
    assert report.bytes == sum(path.stat().st_size for path in report.out.iterdir())
    assert "the smallest bundle" in found.unreachable[1000]
    assert [path.name for path in request_.out.iterdir()] == ["1000000"]
    with pytest.raises(RequestError, match="the smallest bundle"):
        found.all()


def test_a_plan_is_followed_and_calibrated_anew(
    request_: CompileRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = front.make_plan(replace(request_, method="myqasr", order="descending", budget=40_000))
    path = tmp_path / "plan.json"
    path.write_text(plan_to_json(made))
    followed = front.compile_bundle(replace(request_, plan=path, budget=None))
    assert followed.plan.sites == made.sites
    assert not _told(caplog)

    head = made.sites[-1].replace(clip=0.5)
    path.write_text(plan_to_json(made.replace(sites=(*made.sites[:-1], head))))
    followed = front.compile_bundle(replace(request_, plan=path, budget=None))
    assert followed.plan.sites[-1] == made.sites[-1]
    assert "ranges of 1 sites (lm_head first) are calibrated anew" in _told(caplog)[-1]


def test_little_audio_is_told_where_weights_are_narrow(
    request_: CompileRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    front.sweep(request_, [40_000, 10**6])
    [told] = [line for line in _told(caplog) if "audio calibrate" in line]
    assert "s of audio calibrate, little for fewer than 4 bits" in told
    caplog.clear()
    monkeypatch.setattr(front, "_LITTLE_SECONDS", 0.5)
    front.compile_bundle(replace(request_, budget=40_000, out=tmp_path / "enough"))
    assert not any("audio calibrate" in line for line in _told(caplog))


@pytest.mark.parametrize("effort", ["quick", "max"])
def test_auto_writes_what_it_predicted_and_codes_of_its_own(request_: CompileRequest, effort: str) -> None:
    request = replace(request_, method="auto", effort=effort, activations="dynamic", budget=38_000)
    report = front.compile_bundle(request)
    assert report.bytes <= report.plan.total_bytes <= 38_000
    assert report.plan.total_bytes - report.bytes < 200  # digits of the agreement
    assert len({site.bits for site in report.plan.sites if site.bits}) > 2
    assert {site.rounding for site in report.plan.sites if site.bits} == {"compensated"}
    assert verify(report.out) == []
    first = {path.name: path.read_bytes() for path in report.out.iterdir()}

    nearest = front.compile_bundle(replace(request, rounding="nearest", out=report.out.with_name("nearest")))
    assert nearest.bytes <= 38_000
    again = front.compile_bundle(replace(request, out=report.out.with_name("again")))
    assert {path.name: path.read_bytes() for path in again.out.iterdir()} == first
    assert (nearest.out / "model.onnx.data").read_bytes() != first["model.onnx.data"]


def test_auto_is_no_method_of_the_paper() -> None:
    with pytest.raises(InputError, match="with method auto use tier default"):
        CompileRequest("m", tier="paper")
    with pytest.raises(InputError, match="order descending: is one of myqasr's"):
        CompileRequest("m", order="descending")


def test_verify_holds_the_packed_tensors_to_the_plan(request_: CompileRequest) -> None:
    out = front.compile_bundle(replace(request_, method="myqasr", order="descending", budget=40_000)).out
    assert verify(out) == []
    manifest = Manifest.read(out)
    sites = manifest.plan["sites"]
    index, site = next((index, site) for index, site in enumerate(sites) if site["bits"] in (3, 4))
    changed = [*sites[:index], {**site, "bits": 2}, *sites[index + 1 :]]
    manifest.model_copy(update={"plan": {**manifest.plan, "sites": changed}}).write(out)
    wrong = f"site {site['site']} has {site['bits']} bits per channel, its plan says 2 per channel"
    assert verify(out) == [f"model.onnx.data: {wrong}"]

    data = bytearray((out / "model.onnx.data").read_bytes())
    data[data.index(b"NBIT") + HEADER_BYTES] ^= 1  # a writer that stores other codes than it summed
    (out / "model.onnx.data").write_bytes(data)
    files = {**manifest.files, "model.onnx.data": FileEntry.of(out / "model.onnx.data")}
    manifest.model_copy(update={"files": files}).write(out)
    assert verify(out)[-1] == "model.onnx.data: no whole packed tensor for site lm_head"


def test_what_can_be_asked_for_is_what_the_rooms_have() -> None:
    assert set(get_args(request.Reduction)) == {*REDUCTIONS, *DISTANCES}
    assert {*get_args(request.Order), "uniform"} == set(get_args(allocate.Order))
    assert set(get_args(request.Target)) == set(TARGETS)


def _told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "bitvox"]
