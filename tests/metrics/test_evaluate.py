"""A bundle is judged on what it writes; the tones make its errors known in advance."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tone_bundle import play, write_tone_bundle

from bitvox.benchmarks.dataset import read_dataset
from bitvox.benchmarks.evaluate import evaluate, words_on_silence
from bitvox.compiler.frontend.audio import read_clip
from bitvox.compiler.frontend.decoding import DecodingOptions
from bitvox.errors import InputError
from bitvox.exporters.bundle import Bundle
from bitvox.exporters.manifest import Manifest, short_digest
from bitvox.exporters.runner import Runner, open_runner

TEXTS = {"anna": ["BAD CAB", "ACE"], "ben": ["DEED", "C"]}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rows = ["path,speaker,text,split,extra"]
    for speaker, texts in TEXTS.items():
        for number, text in enumerate(texts):
            soundfile.write(folder / f"{speaker}{number}.wav", play(text), 16000, subtype="PCM_16")
            rows.append(f"{speaker}{number}.wav,{speaker},{text},{'test' if number else 'train'},x")
    (folder / "manifest.csv").write_text("\ufeff" + "\n".join(rows), encoding="utf-8")
    return folder / "manifest.csv"


@pytest.fixture(scope="module")
def faithful(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(write_tone_bundle(tmp_path_factory.mktemp("bundles") / "faithful"))


@pytest.fixture(scope="module")
def lossy(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(write_tone_bundle(tmp_path_factory.mktemp("bundles") / "lossy", confuse=("A", "B")))


@pytest.fixture(scope="module")
def full_precision(faithful: Bundle) -> Runner:
    return open_runner(faithful)


def test_the_table_is_read_filtered_and_thinned(table: Path) -> None:
    assert [item.text for item in read_dataset(table).utterances] == ["BAD CAB", "ACE", "DEED", "C"]
    assert [item.text for item in read_dataset(table, split="test").utterances] == ["ACE", "C"]
    assert [item.text for item in read_dataset(table, speaker="ben").utterances] == ["DEED", "C"]
    assert [item.speaker for item in read_dataset(table, limit=2).utterances] == ["anna", "ben"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"split": "dev"}, "no row with split 'dev'; there is test, train"),
        ({"speaker": "carl"}, "no row with speaker 'carl'; there is anna, ben"),
        ({"limit": 0}, "keep at least 1"),
    ],
)
def test_options_that_the_table_cannot_answer(table: Path, options: dict, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        read_dataset(table, **options)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "no column 'path'"),
        (b"file,text\na.wav,x\n", "no column 'path'"),
        (b"path,text\n", "no rows"),
        (b"path,text\nanna0.wav,A\ngone.wav,x\n", r"line 3: no such recording: .*gone\.wav"),
        (b"path,text\n\xff\xfe,x\n", "not a CSV table in UTF-8"),
    ],
)
def test_tables_that_are_none(table: Path, content: bytes, complaint: str) -> None:
    bad = table.parent / "bad.csv"
    bad.write_bytes(content)
    with pytest.raises(InputError, match=complaint):
        read_dataset(bad)
    bad.unlink()
    with pytest.raises(InputError, match="no such table"):
        read_dataset(bad)


def test_a_faithful_bundle_has_no_errors(faithful: Bundle, full_precision: Runner, table: Path) -> None:
    report = evaluate(faithful, read_dataset(table), full_precision)
    assert report.scores.words is not None
    assert report.scores.words.rate.percent == 0
    assert report.scores.words.length == 5
    assert report.scores.words_on_silence == 0
    assert report.comparison is not None
    assert report.comparison.identical == 1
    assert report.comparison.no_regression == 1
    assert (report.clips, report.skipped, report.clustered_by) == (4, 0, "speaker")
    assert report.seconds == pytest.approx(sum(play(t).size for ts in TEXTS.values() for t in ts) / 16000)


def test_known_errors_are_counted(lossy: Bundle, full_precision: Runner, table: Path) -> None:
    report = evaluate(lossy, read_dataset(table), full_precision)
    assert [entry.bundle for entry in report.transcripts] == ["BD CB", "BCE", "DEED", "C"]
    assert report.scores.words is not None
    assert report.scores.characters is not None
    assert (report.scores.words.substitutions, report.scores.words.length) == (3, 5)
    assert report.scores.characters.length == 15
    assert report.comparison is not None
    assert report.comparison.word_error_rate.rate.percent == pytest.approx(60)
    assert report.comparison.difference is not None
    assert report.comparison.difference.percent == pytest.approx(60)
    assert report.comparison.no_regression == 0.5
    document = json.loads(report.to_json())
    assert document["scores"]["words"]["rate"]["percent"] == pytest.approx(60)
    assert document["digest"] == evaluate(lossy, read_dataset(table)).digest


def test_without_transcripts_agreement_is_judged(lossy: Bundle, full_precision: Runner, table: Path) -> None:
    dataset = read_dataset(table.parent)
    report = evaluate(lossy, dataset, full_precision)
    assert report.scores.words is None
    assert report.clustered_by == "clip"
    assert report.comparison is not None
    assert report.comparison.identical == 0.5
    assert report.comparison.no_regression is None
    with pytest.raises(InputError, match="needs the full-precision model"):
        evaluate(lossy, dataset)


def test_a_recording_without_a_transcript_is_named(
    lossy: Bundle, full_precision: Runner, table: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = table.parent / "rows.csv"
    rows.write_text("path,text\nanna0.wav,BAD CAB\nben0.wav\n")
    lacking = read_dataset(rows)
    with pytest.raises(InputError, match=r"no transcript of .*ben0\.wav \(1 of 2 recordings have none\)"):
        evaluate(lossy, lacking)
    report = evaluate(lossy, lacking, full_precision)
    assert report.scores.words is None
    assert "ben0.wav" in caplog.messages[-1]
    rows.unlink()


def test_recordings_that_cannot_be_used_are_counted(
    faithful: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    soundfile.write(tmp_path / "short.wav", np.zeros(2), 16000)
    (tmp_path / "empty.wav").touch()
    (tmp_path / "t.csv").write_text("path,text\nshort.wav,A\nempty.wav,B\n")
    with pytest.raises(InputError, match="none of its 2 recordings"):
        evaluate(faithful, read_dataset(tmp_path / "t.csv"))
    assert len(caplog.messages) == 2
    soundfile.write(tmp_path / "good.wav", play("A"), 16000)
    (tmp_path / "t.csv").write_text("path,text\nshort.wav,A\ngood.wav,A\n")
    report = evaluate(faithful, read_dataset(tmp_path / "t.csv"))
    assert (report.clips, report.skipped) == (1, 1)
    assert report.comparison is None


def test_recordings_that_calibrated_the_bundle_are_told(
    tmp_path: Path, table: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_tone_bundle(tmp_path / "bundle")
    seen = [read_clip(table.parent / name, 16000) for name in ("anna0.wav", "ben1.wav")]
    digests = tuple(short_digest(clip) for clip in seen)
    Manifest.read(folder).model_copy(update={"calibrated_on": digests}).write(folder)
    report = evaluate(Bundle.open(folder), read_dataset(table))
    assert (report.clips, report.calibrated_on) == (4, 2)
    assert "2 of the 4 recordings calibrated the bundle" in caplog.messages[-1]
    caplog.clear()
    assert evaluate(Bundle.open(folder), read_dataset(table, split="test", speaker="anna")).calibrated_on == 0
    assert not caplog.messages


class Babbler:
    """Writes two words whatever it hears, as int8 recognisers have been seen to do on silence."""

    def transcribe(self, samples: np.ndarray, options: DecodingOptions | None = None) -> str:
        return "thank you"


def test_words_invented_on_silence_are_counted() -> None:
    assert words_on_silence(Babbler(), 16000) == 8


def test_loops_and_words_on_silent_recordings_are_named(faithful: Bundle, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "loop.wav", play("A B A B A B A B"), 16000)
    soundfile.write(tmp_path / "chant.wav", play("C C C C C"), 16000)
    soundfile.write(tmp_path / "hush.wav", np.zeros(16000), 16000)
    (tmp_path / "t.csv").write_text("path,text\nloop.wav,A B\nchant.wav,c c c c c\nhush.wav,\n")
    report = evaluate(faithful, read_dataset(tmp_path / "t.csv"), Babbler())
    assert report.scores.loops == (str(tmp_path / "loop.wav"),)
    assert (report.silent, report.scores.invented) == (1, ())
    assert report.full_precision is not None
    assert report.full_precision.invented == (str(tmp_path / "hush.wav"),)
    assert report.full_precision.loops == ()
    assert [entry["silent"] for entry in json.loads(report.to_json())["transcripts"]] == [False, False, True]
