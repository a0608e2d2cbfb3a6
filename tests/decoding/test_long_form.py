"""Long recordings: every burst of sound is heard once, wherever the windows fall.

The model is a decoder that can be worked out by hand: it names the pitch of each burst that it sees in the
features of a window, with the times of the burst where its prompt asks for them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration
from whisper_checkpoint import SECONDS, write_checkpoint

from bitvox.compiler.frontend.decoding import DecodingOptions
from bitvox.compiler.frontend.long_form import transcribe
from bitvox.compiler.frontend.whisper_files import read_whisper_processor
from bitvox.compiler.frontend.whisper_processor import WhisperProcessor
from bitvox.errors import InputError

FloatArray = npt.NDArray[np.float32]
RATE = 16_000
LETTERS = "abcdefghijklmnop"  # one for each mel filter
HERTZ = (600, 1400, 2400, 4000)


@dataclass(frozen=True)
class Hears:
    """What a window says, and what has been read of it."""

    bursts: tuple[tuple[int, int, str], ...]  # first and last frame, letter
    read: tuple[int, ...] = ()


@dataclass
class PitchGraphs:
    """`DecoderGraphs` of a model that names pitches.

    Attributes:
        processor: Its tokens.
        silence: Logit of the token of no speech, before the prompt.
        certainty: Logit of what it has to say, beside zeros.
        taught: Whether it writes times where it is asked for them.
        creeps: Whether it ends every first burst after one step of time, and begins the next at once.
        prompts: What was read before the first letter, window by window.
    """

    processor: WhisperProcessor
    silence: float = 0.0
    certainty: float = 30.0
    taught: bool = True
    creeps: bool = False
    max_rows: int = 1
    prompts: list[tuple[int, ...]] = field(default_factory=list)

    def encode(self, features: FloatArray) -> Hears:
        """Bursts are runs of loud frames; a frame sees 12 ms on both sides."""
        self.prompts.append(())
        loud = features.max(axis=0) > 0.5
        edges = np.flatnonzero(np.diff(np.concatenate(([False], loud, [False]))))
        bursts = [
            (int(first), int(end), letter_of(features[:, (first + end) // 2]))
            for first, end in edges.reshape(-1, 2)
            if end - first > 5
        ]
        return Hears(tuple(bursts))

    def step(self, state: Hears, tokens: npt.NDArray[np.int64]) -> tuple[FloatArray, Hears]:
        """The next token of what it has to say is certain."""
        read = (*state.read, *tokens[0].tolist())
        logits = np.zeros((1, self.processor.outputs), np.float32)
        asked = self._prompt(read)
        if asked is None:
            logits[0, self.processor.languages["en"]] = 1.0
            logits[0, self.processor.no_speech or 0] = self.silence
        else:
            self.prompts[-1] = read[:asked]
            no_times = self.processor.no_timestamps
            timed = no_times is not None and no_times not in read[:asked]
            says = self._says(state.bursts, timed)
            logits[0, says[len(read) - asked]] = self.certainty
        return logits, Hears(state.bursts, read)

    def reorder(self, state: Hears, rows: npt.NDArray[np.int64]) -> Hears:
        """One row."""
        return state

    def _prompt(self, read: Sequence[int]) -> int | None:
        task = self.processor.tasks["transcribe"]
        if task not in read:
            return None
        after = read.index(task) + 1
        return after + (read[after : after + 1] == (self.processor.no_timestamps,))

    def _says(self, bursts: Sequence[tuple[int, int, str]], timed: bool) -> list[int]:
        first_time = self.processor.first_time or 0
        timed_well = timed and self.taught
        says = [first_time] if timed and not (bursts and self.taught) else []
        for first, end, letter in bursts:
            begin, close = first_time + first // 2, first_time + (first // 2 + 1 if self.creeps else end // 2)
            word = [token_of(self.processor, b" "), token_of(self.processor, letter.encode())]
            cut = end == self.processor.mel.frames
            says += [begin, *word, *([] if cut else [close])] if timed_well else word
            if timed and self.creeps:
                return [*says, close, word[1], self.processor.end]
        return [*says, self.processor.end]


def letter_of(frame: FloatArray) -> str:
    """The name of the loudest filter."""
    return LETTERS[int(frame.argmax())]


def tone(hertz: int, samples: int) -> FloatArray:
    """A loud tone."""
    return (0.5 * np.sin(2 * np.pi * hertz / RATE * np.arange(samples))).astype(np.float32)


def token_of(processor: WhisperProcessor, piece: bytes) -> int:
    """The token of one byte."""
    return next(token for token in range(256) if processor.text([token]).encode() == piece)


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> WhisperProcessor:
    """Windows of two seconds; any time may be the first."""
    folder = write_checkpoint(tmp_path_factory.mktemp("whisper"))
    read = read_whisper_processor(folder, WhisperConfig.from_pretrained(folder))
    return read.model_copy(update={"last_first_time": None, "suppressed": (), "suppressed_first": ()})


@pytest.fixture(scope="module")
def untimed(processor: WhisperProcessor) -> WhisperProcessor:
    """The same without times."""
    return processor.model_copy(update={"no_timestamps": None})


def recording(
    processor: WhisperProcessor, seconds: float, seed: int
) -> tuple[FloatArray, list[tuple[float, float, str]]]:
    """Bursts of 0.2 to 0.5 s with pauses of 0.1 to 0.6 s between them, and where they are."""
    draw = np.random.default_rng(seed)
    samples = np.zeros(round(seconds * RATE), np.float32)
    names = {hertz: letter_of(processor.features(tone(hertz, RATE))[:, 50]) for hertz in HERTZ}
    bursts, at = [], 0.3
    while (end := at + draw.uniform(0.2, 0.5)) < seconds - 0.1:
        hertz = int(draw.choice(HERTZ))
        first, last = round(at * RATE), round(end * RATE)
        samples[first:last] = tone(hertz, last - first)
        bursts.append((at, end, names[hertz]))
        at = end + draw.uniform(0.1, 0.6)
    return samples, bursts


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("seconds", [SECONDS - 0.2, 2 * SECONDS, 9.3])
def test_windows_that_follow_times_hear_every_burst_once(
    processor: WhisperProcessor, seconds: float, seed: int
) -> None:
    samples, bursts = recording(processor, seconds, seed)
    found = transcribe(PitchGraphs(processor), processor, samples, DecodingOptions(timestamps=True))
    assert found.text == " ".join(letter for _, _, letter in bursts)
    assert [segment.text for segment in found.segments] == [letter for _, _, letter in bursts]
    for segment, (start, end, _) in zip(found.segments, bursts, strict=True):
        assert segment.start == pytest.approx(start, abs=0.06)
        assert segment.end == pytest.approx(end, abs=0.06)


def test_a_long_recording_is_decoded_with_times_though_none_are_asked_for(
    processor: WhisperProcessor,
) -> None:
    samples, bursts = recording(processor, 7.0, 5)
    graphs = PitchGraphs(processor)
    assert transcribe(graphs, processor, samples).text == " ".join(letter for _, _, letter in bursts)
    assert not any(processor.no_timestamps in prompt for prompt in graphs.prompts)
    [segment] = transcribe(graphs, processor, samples[: SECONDS * RATE]).segments
    assert processor.no_timestamps in graphs.prompts[-1]
    assert (segment.start, segment.end) == (0.0, SECONDS)


@pytest.mark.parametrize("seed", range(4))
def test_without_times_windows_are_cut_in_pauses(untimed: WhisperProcessor, seed: int) -> None:
    samples, bursts = recording(untimed, 9.3, seed)
    found = transcribe(PitchGraphs(untimed), untimed, samples)
    assert found.text == " ".join(letter for _, _, letter in bursts)
    assert len(found.segments) > 9.3 / SECONDS
    ends = [segment.end for segment in found.segments[:-1]]
    assert not any(start < end < stop for end in ends for start, stop, _ in bursts)


def test_a_model_that_was_not_taught_times_is_cut_in_pauses(processor: WhisperProcessor) -> None:
    samples, bursts = recording(processor, 9.3, 2)
    graphs = PitchGraphs(processor, taught=False)
    assert transcribe(graphs, processor, samples).text == " ".join(letter for _, _, letter in bursts)
    assert all(processor.no_timestamps in prompt for prompt in graphs.prompts[1:])
    short, bursts = recording(processor, SECONDS - 0.2, 2)
    asked = DecodingOptions(timestamps=True)
    [segment] = transcribe(PitchGraphs(processor, taught=False), processor, short, asked).segments
    assert (segment.start, segment.end) == (0.0, SECONDS - 0.2)
    assert segment.text == " ".join(letter for _, _, letter in bursts)


def test_a_model_that_creeps_gets_through(processor: WhisperProcessor) -> None:
    samples, _ = recording(processor, 9.3, 0)
    graphs = PitchGraphs(processor, creeps=True)
    transcribe(graphs, processor, samples)
    assert len(graphs.prompts) < 9.3 / (0.1 * SECONDS)


def test_a_window_without_speech_says_nothing(processor: WhisperProcessor) -> None:
    samples, bursts = recording(processor, SECONDS, 0)
    assert bursts
    assert transcribe(PitchGraphs(processor, silence=9.0, certainty=0.1), processor, samples).text == ""
    assert transcribe(PitchGraphs(processor, silence=9.0), processor, samples).text != ""


def test_the_text_before_is_read_only_where_it_is_asked_for(processor: WhisperProcessor) -> None:
    samples, bursts = recording(processor, 5.0, 1)
    without, graphs = PitchGraphs(processor), PitchGraphs(processor)
    transcribe(without, processor, samples)
    assert all(prompt[0] == processor.start for prompt in without.prompts)
    found = transcribe(graphs, processor, samples, DecodingOptions(previous_text=True))
    assert found.text == " ".join(letter for _, _, letter in bursts)
    assert graphs.prompts[0][0] == processor.start
    assert graphs.prompts[1][0] == processor.previous
    assert processor.text(graphs.prompts[1]).split() == [
        bursts[0][2],
        *processor.text(graphs.prompts[1]).split()[1:],
    ]
    assert all(len(prompt) <= processor.positions // 2 + 3 for prompt in graphs.prompts)


def test_more_beams_than_the_model_runs_are_refused(processor: WhisperProcessor) -> None:
    with pytest.raises(InputError, match="beams 4: this model runs 1 at a time"):
        transcribe(PitchGraphs(processor), processor, np.zeros(RATE, np.float32), DecodingOptions(beams=4))


def test_logits_that_are_not_finite_are_refused(processor: WhisperProcessor) -> None:
    graphs = PitchGraphs(processor, certainty=float("nan"))
    with pytest.raises(InputError, match="logits are not finite"):
        transcribe(graphs, processor, np.zeros(RATE, np.float32))
    graphs.max_rows = 2
    with pytest.raises(InputError, match="logits are not finite"):
        transcribe(graphs, processor, np.zeros(RATE, np.float32), DecodingOptions(beams=2))


def test_nothing_is_written_where_nothing_is_heard(processor: WhisperProcessor) -> None:
    found = transcribe(PitchGraphs(processor), processor, np.zeros(5 * RATE, np.float32))
    assert (found.text, found.segments) == ("", ())


@dataclass
class Says:
    """`DecoderGraphs` of a model that says given tokens of its first window, and nothing of the next."""

    processor: WhisperProcessor
    tokens: Sequence[int]
    max_rows: int = 1
    windows: int = 0

    def encode(self, features: FloatArray) -> int:
        """Tokens read so far."""
        self.windows += 1
        return 0

    def step(self, state: int, tokens: npt.NDArray[np.int64]) -> tuple[FloatArray, int]:
        """The next token is certain after `start`, a language and a task."""
        read = state + tokens.shape[1]
        script = self.tokens if self.windows == 1 else (self.processor.first_time or 0,)
        said = (0, 0, *script, self.processor.end)
        logits = np.zeros((1, self.processor.outputs), np.float32)
        logits[0, said[read - 1]] = 30.0
        return logits, read

    def reorder(self, state: int, rows: npt.NDArray[np.int64]) -> int:
        """One row."""
        return state


def said_with_times(processor: WhisperProcessor, seed: int) -> list[int]:
    """Stretches of text between pairs of times; the last with a time, a pair, or nothing after it."""
    draw = np.random.default_rng(seed)
    first = processor.first_time
    assert first is not None
    times = np.sort(draw.choice(np.arange(12, 98), draw.integers(2, 6), replace=False))
    said = [first + int(draw.integers(0, 12))]
    for time in times:
        said += [*draw.integers(65, 91, draw.integers(1, 4)).tolist(), first + int(time), first + int(time)]
    left = draw.integers(0, 3)
    return [*said[:-1], *([] if left == 0 else [said[-1]]), *([70, 71] if left == 2 else [])]


@pytest.mark.parametrize("seed", range(12))
def test_a_window_is_split_and_left_as_transformers_does_it(processor: WhisperProcessor, seed: int) -> None:
    said, first = said_with_times(processor, seed), processor.first_time
    theirs, frames = WhisperForConditionalGeneration._retrieve_segment(
        seek_sequence=torch.tensor(said),
        seek_outputs=[{}],
        time_offset=torch.zeros(1, dtype=torch.float64),
        timestamp_begin=first,
        seek_num_frames=torch.tensor([processor.mel.frames]),
        time_precision=0.02,
        time_precision_features=0.01,
        input_stride=2,
        prev_idx=0,
        idx=0,
        return_token_timestamps=False,
        decoder_input_ids=torch.zeros(1, 3),
    )
    graphs = Says(processor, said)
    ours = list(transcribe(graphs, processor, np.zeros(3 * SECONDS * RATE, np.float32)).segments)
    assert [(one.start, one.end) for one in ours] == [
        (pytest.approx(float(one["start"])), pytest.approx(float(one["end"]))) for one in theirs
    ]
    texts = [processor.text(token for token in one["tokens"].tolist() if token < first) for one in theirs]
    assert [one.text for one in ours] == [text.strip() for text in texts]
    rest = 3 * SECONDS - int(frames) * processor.mel.hop / RATE
    assert graphs.windows == 1 + math.ceil(rest / SECONDS)
