"""Recordings as users have them: every format, and every way a file can be broken."""

from __future__ import annotations

import shutil
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile

from bitvox.compiler.frontend.audio import Clip, defect, find_audio, read_clip, read_folder, split_clips
from bitvox.errors import InputError

RATE = 16000


def tone(seconds: float = 0.5, rate: int = RATE, hertz: float = 440.0, channels: int = 1) -> np.ndarray:
    wave = 0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)
    return np.repeat(wave.astype(np.float32)[:, None], channels, axis=1)


def truncate(path: Path, share: float = 0.6) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize(
    ("name", "rate", "channels", "options"),
    [
        ("a.wav", 8000, 2, {"subtype": "PCM_24"}),
        ("a.wav", 44100, 1, {"subtype": "FLOAT"}),
        ("a.wav", 16000, 6, {"subtype": "PCM_16"}),
        ("a.wav", 22050, 1, {"subtype": "PCM_U8"}),
        ("a.flac", 48000, 2, {}),
        ("a.ogg", 16000, 1, {}),
        ("a.opus", 48000, 1, {"format": "OGG", "subtype": "OPUS"}),
        ("a.mp3", 16000, 1, {}),
        ("a.aiff", 11025, 1, {}),
    ],
)
def test_any_format_rate_and_channel_count_gives_the_same_tone(
    tmp_path: Path, name: str, rate: int, channels: int, options: dict[str, str]
) -> None:
    path = tmp_path / name
    soundfile.write(path, tone(1.0, rate, channels=channels), rate, **options)
    clip = read_clip(path, RATE)
    assert clip.samples.dtype == np.float32
    assert clip.samples.ndim == 1
    assert clip.seconds == pytest.approx(1.0, abs=0.1)
    spectrum = np.abs(np.fft.rfft(clip.samples))
    peak = np.fft.rfftfreq(clip.samples.size, 1 / RATE)[spectrum.argmax()]
    assert peak == pytest.approx(440, abs=3)
    middle = clip.samples[4000:12000]
    assert np.sqrt(2 * np.mean(middle**2)) == pytest.approx(0.3, rel=0.05)


def test_channels_are_averaged(tmp_path: Path) -> None:
    left_only = tone(channels=2)
    left_only[:, 1] = 0
    soundfile.write(tmp_path / "left.wav", left_only, RATE, subtype="FLOAT")
    np.testing.assert_allclose(read_clip(tmp_path / "left.wav", RATE).samples, left_only[:, 0] / 2)


def test_the_digest_follows_the_content_not_the_name_or_the_coding(tmp_path: Path) -> None:
    pcm = (tone()[:, 0] * 32767).astype(np.int16)
    for name in ("one.wav", "two.wav", "three.flac"):
        soundfile.write(tmp_path / name, pcm, RATE, subtype="PCM_16")
    soundfile.write(tmp_path / "other.wav", pcm[::-1], RATE)
    digests = {name: read_clip(tmp_path / name, RATE).digest for name in ("one.wav", "two.wav", "three.flac")}
    assert len(set(digests.values())) == 1
    assert read_clip(tmp_path / "other.wav", RATE).digest not in digests.values()


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.aiff", "a.opus"])
def test_a_truncated_file_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    options = {"format": "OGG", "subtype": "OPUS"} if name == "a.opus" else {}
    soundfile.write(path, tone(2.0), RATE, **options)
    truncate(path)
    with pytest.raises(InputError, match=f"{name}.*truncated") as caught:
        read_clip(path, RATE)
    assert "\n" not in str(caught.value)


def test_a_streamed_wav_of_unknown_length_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "pipe.wav"
    soundfile.write(path, tone(), RATE, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert read_clip(path, RATE).samples.size == tone().shape[0]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"", "empty file"), (b"hello world" * 50, "unreadable"), (b"RIFF", "unreadable")],
)
def test_what_is_not_audio_is_named(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "junk.wav"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"junk\.wav.*{complaint}"):
        read_clip(path, RATE)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    samples = tone()
    samples[100] = value
    soundfile.write(tmp_path / "bad.wav", samples, RATE, subtype="FLOAT")
    with pytest.raises(InputError, match="NaN or infinite"):
        read_clip(tmp_path / "bad.wav", RATE)


def test_a_header_with_an_absurd_rate_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "slow.wav", tone(), 1)
    with pytest.raises(InputError, match="sampled at 1 Hz"):
        read_clip(tmp_path / "slow.wav", RATE)


def test_a_missing_file_and_a_folder_are_no_clip(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_clip(tmp_path / "none.wav", RATE)
    with pytest.raises(InputError, match="not a file"):
        read_clip(tmp_path, RATE)


def test_defects(tmp_path: Path) -> None:
    def clip(samples: np.ndarray) -> Clip:
        return Clip(tmp_path / "c.wav", samples.astype(np.float32), samples.size / RATE, "")

    wave = np.sin(np.arange(400))
    assert defect(clip(0.001 * wave), 400) is None
    assert "silent" in str(defect(clip(np.ones(400)), 400))
    assert "silent" in str(defect(clip(0.5 + 3e-5 * wave), 400))
    assert "too short (2 samples" in str(defect(clip(np.ones(2)), 400))
    assert "zero" in str(defect(clip(np.zeros(400)), 400))


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_a_constant_clip_is_silent_at_any_rate(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "dc.wav", np.full(rate // 2, 0.4), rate)
    samples = read_clip(tmp_path / "dc.wav", RATE).samples
    np.testing.assert_allclose(samples, 0.4, atol=1e-4)
    with pytest.raises(InputError, match="none of its 1 audio files can be used"):
        read_folder(tmp_path, RATE, 400, lambda line: None)


def test_a_folder_is_read_in_order_and_its_faults_are_told(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "b.wav", tone(hertz=300), RATE)
    (tmp_path / "déjà vu/深い").mkdir(parents=True)
    soundfile.write(tmp_path / "déjà vu/深い/ü ñ.FLAC", tone(hertz=200), RATE, format="FLAC")
    soundfile.write(tmp_path / "a.ogg", tone(), RATE)
    soundfile.write(tmp_path / "silent.wav", tone() * 0, RATE)
    soundfile.write(tmp_path / "short.wav", tone()[:2], RATE)
    soundfile.write(tmp_path / "none.wav", tone()[:0], RATE)
    soundfile.write(tmp_path / "nan.wav", tone() * np.nan, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "cut.wav", tone(), RATE)
    truncate(tmp_path / "cut.wav")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "._b.wav").write_bytes(b"a Macintosh left this")
    (tmp_path / "notes.txt").write_text("not audio")
    warnings: list[str] = []
    clips = read_folder(tmp_path, RATE, 400, warnings.append)
    assert [clip.path.name for clip in clips] == ["a.ogg", "b.wav", "ü ñ.FLAC"]
    faults = {"silent.wav", "short.wav", "none.wav", "nan.wav", "cut.wav", "empty.wav"}
    assert len(warnings) == len(faults)
    assert all(sum(name in line for line in warnings) == 1 for name in faults)
    assert all("\n" not in line and line.startswith("skipped ") for line in warnings)


def test_links_are_followed_once(tmp_path: Path) -> None:
    voice = tmp_path / "voice"
    voice.mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    soundfile.write(elsewhere / "a.wav", tone(), RATE)
    (voice / "linked.wav").symlink_to(elsewhere / "a.wav")
    (voice / "folder").symlink_to(elsewhere, target_is_directory=True)
    (elsewhere / "loop").symlink_to(voice, target_is_directory=True)
    (voice / "dangling.wav").symlink_to(tmp_path / "gone.wav")
    warnings: list[str] = []
    clips = read_folder(voice, RATE, 400, warnings.append)
    assert sorted(clip.path.name for clip in clips) == ["a.wav", "linked.wav"]
    assert len(warnings) == 1
    assert "dangling.wav" in warnings[0]


def test_one_file_is_a_folder_of_one(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(), RATE)
    assert len(read_folder(tmp_path / "a.wav", RATE, 400, pytest.fail)) == 1


@pytest.mark.parametrize(
    ("files", "complaint"),
    [((), "no audio in it"), (("a.txt",), "no audio in it"), (("a.m4a", "b.m4a"), "2 .m4a files: convert")],
)
def test_a_folder_without_audio(tmp_path: Path, files: tuple[str, ...], complaint: str) -> None:
    for name in files:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=complaint):
        find_audio(tmp_path)


def test_places_without_audio(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        find_audio(tmp_path / "gone")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="not an audio file"):
        find_audio(tmp_path / "notes.txt")


def test_a_folder_with_nothing_usable(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silent.wav", tone() * 0, RATE)
    with pytest.raises(InputError, match="none of its 1 audio files can be used"):
        read_folder(tmp_path, RATE, 400, lambda line: None)


def clips_of(digests: list[str]) -> list[Clip]:
    one = np.ones(1, dtype=np.float32)
    return [Clip(Path(f"{i}.wav"), one, 1.0, digest) for i, digest in enumerate(digests)]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 20, 41])
def test_the_split_is_disjoint_whole_and_about_a_quarter(count: int) -> None:
    clips = clips_of([f"{i * 37 % 101:03d}" for i in range(count)])
    calibration, judging = split_clips(clips, 1000)
    assert len(calibration) + len(judging) == count
    assert not {clip.digest for clip in calibration} & {clip.digest for clip in judging}
    assert len(judging) == (0 if count == 1 else max(1, count // 4))


def test_the_split_forgets_names_and_order() -> None:
    digests = [f"{i * 37 % 101:03d}" for i in range(20)]
    first = split_clips(clips_of(digests), 5)
    again = split_clips(clips_of(digests[::-1]), 5)
    for one, other in zip(first, again, strict=True):
        assert [clip.digest for clip in one] == [clip.digest for clip in other]
    assert len(first[0]) == 5
    assert len(first[1]) == 5


def test_copies_of_a_recording_stay_together() -> None:
    calibration, judging = split_clips(clips_of(["a", "b", "a", "c", "a", "b"]), 100)
    assert [clip.digest for clip in judging] == ["a", "a", "a"]
    assert [clip.digest for clip in calibration] == ["b", "b", "c"]
    calibration, judging = split_clips(clips_of(["a", "a"]), 100)
    assert not judging


def test_clips_calibrate_as_far_as_the_seconds_go() -> None:
    clips = clips_of([f"{number:02d}" for number in range(20)])
    for seconds, count in ((7.0, 7), (7.9, 7), (0.5, 1), (100.0, 15)):
        calibration, judging = split_clips(clips, seconds=seconds)
        assert (len(calibration), len(judging)) == (count, 5)
    assert len(split_clips(clips, 3, seconds=7.0)[0]) == 3


def test_of_a_recording_longer_than_there_is_time_for_its_start_calibrates() -> None:
    long = Clip(Path("lecture.wav"), np.arange(8000, dtype=np.float32), 4.0, "digest")
    (cut,), judging = split_clips([long], seconds=1.5)
    assert not judging
    np.testing.assert_array_equal(cut.samples, long.samples[:3000])
    assert (cut.seconds, cut.digest) == (1.5, "digest")
    assert split_clips([long], seconds=4.0)[0] == [long]


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(InputError, match="at least 1 clip"):
        split_clips(clips_of(["a", "b"]), 0)


def test_a_link_to_a_folder_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    soundfile.write(tmp_path / "real/a.wav", tone(), RATE)
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    assert len(find_audio(tmp_path / "link")) == 1
    shutil.rmtree(tmp_path / "real")
    with pytest.raises(InputError, match="no such"):
        find_audio(tmp_path / "link")


def test_reading_agrees_with_librosa(tmp_path: Path) -> None:
    """An independent reader: channels averaged, 44.1 kHz brought to 16 kHz."""
    time = np.arange(44100) / 44100
    stereo = np.stack([0.4 * np.sin(2 * np.pi * 440 * time), 0.2 * np.sin(2 * np.pi * 1000 * time)], axis=1)
    path = tmp_path / "stereo.wav"
    soundfile.write(path, stereo, 44100, subtype="PCM_24")
    expected, _ = librosa.load(path, sr=16000, mono=True, res_type="polyphase")
    samples = read_clip(path, 16000).samples
    assert abs(samples.size - expected.size) <= 1
    middle = slice(1000, 15000)  # filters of different lengths differ at the edges
    np.testing.assert_allclose(samples[middle], expected[middle], atol=2e-3)
