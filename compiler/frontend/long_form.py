"""Transcribe recordings of any length, one window after another (Radford et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from bitvox.compiler.frontend.decoding import (
    DecoderGraphs,
    DecodingOptions,
    Segment,
    Transcription,
    check_rows,
)
from bitvox.compiler.frontend.search import Hypothesis, beam_search, greedy
from bitvox.compiler.frontend.token_rules import TimeRules, TokenRules, log_sum

if TYPE_CHECKING:
    from bitvox.compiler.frontend.token_processor import TokenProcessor

FloatArray = npt.NDArray[np.float32]
State = TypeVar("State")

# A window is left out where no speech is this likely and the text this unlikely (Radford et al. 2022, 4.5).
_NO_SPEECH_PROBABILITY, _UNLIKELY_TEXT = 0.6, -1.0

# Times that leave more of a window to hear again are not followed: a broken model would never get through.
_LEAST_ADVANCE = 0.1

# Where no times are written, a window ends in the middle of the quietest stretch of its last third.
_PAUSE_SHARE, _PAUSE_SECONDS = 1 / 3, 0.1

_WRITTEN_WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})


def transcribe(
    graphs: DecoderGraphs[State],
    processor: TokenProcessor,
    samples: FloatArray,
    options: DecodingOptions | None = None,
) -> Transcription:
    """What samples say.

    A recording that fits in one window is decoded as transformers' `generate` does it. A longer one is
    decoded with times, window after window, each from the end of the last stretch that the one before
    closed; a checkpoint that writes no times, or was not taught to, gets windows that end in pauses.

    Args:
        graphs: The model.
        processor: Its features and tokens.
        samples: [T] at the processor's sampling rate, finite, of any length from `minimum_samples` on.
        options: What is asked; None: `DecodingOptions()`.

    Raises:
        InputError: The checkpoint cannot do what is asked, or its logits are not finite.
    """
    options = options or DecodingOptions()
    processor.check(options)
    language = processor.language_of(options)
    check_rows(graphs, options)
    listener = Listener(graphs, processor, options, language)
    fits = samples.size <= processor.window_samples
    timed = options.timestamps or (not fits and processor.first_time is not None)
    segments = tuple((_follow_times if timed else _cut_in_pauses)(listener, samples))
    text = _join((segment.text for segment in segments), listener.language)
    return Transcription(text, listener.language, segments)


@dataclass
class Listener(Generic[State]):
    """Hears one window after another.

    Attributes:
        language: Of the recording; None until it is detected in the first window, or where there is but one.
        before: Tokens of the windows before.
    """

    graphs: DecoderGraphs[State]
    processor: TokenProcessor
    options: DecodingOptions
    language: str | None
    before: tuple[int, ...] = ()

    def hear(self, window: FloatArray, timed: bool) -> Hypothesis | None:
        """What samples of one window at most say, with times or without; None: nothing."""
        graphs, processor, options = self.graphs, self.processor, self.options
        beginning = (*self._previous_text(), processor.start)
        state = graphs.encode(processor.features(window))
        logits, state = graphs.step(state, np.array([beginning], np.int64))
        no_speech = processor.no_speech
        silence = 0.0 if no_speech is None else float(np.exp(logits[0, no_speech] - log_sum(logits[0])))
        if self.language is None and processor.languages:
            self.language = max(processor.languages, key=lambda code: logits[0, processor.languages[code]])
        prompt = processor.prompt(self.language, options.task, timed)
        if prompt:
            logits, state = graphs.step(state, np.array([prompt], np.int64))
        room = processor.positions - len(beginning) - len(prompt)
        limit = min(options.max_tokens or processor.max_tokens, room)
        rules = _rules(processor, timed)
        if options.beams == 1:
            heard = greedy(graphs, state, logits, rules, processor.end, limit)
        else:
            heard = beam_search(graphs, state, logits, rules, processor.end, limit, options.beams)
        if silence > _NO_SPEECH_PROBABILITY and heard.score < _UNLIKELY_TEXT:
            return None
        return heard

    def _previous_text(self) -> tuple[int, ...]:
        """The end of the text before, up to half of what the decoder reads."""
        if not self.options.previous_text or self.processor.previous is None or not self.before:
            return ()
        return self.processor.previous, *self.before[1 - self.processor.positions // 2 :]


def _rules(processor: TokenProcessor, timed: bool) -> TokenRules:
    times = None
    if timed and processor.no_timestamps is not None and processor.first_time is not None:
        times = TimeRules(
            processor.first_time, processor.no_timestamps, processor.end, processor.last_first_time
        )
    return TokenRules(
        suppressed=np.array(processor.suppressed, np.int64),
        suppressed_first=np.array(processor.suppressed_first, np.int64),
        times=times,
    )


def _cut_in_pauses(listener: Listener[State], samples: FloatArray, at: int = 0) -> Iterator[Segment]:
    """A segment for each window from sample `at` on; none of it is heard twice."""
    processor = listener.processor
    while at == 0 or samples.size - at >= processor.minimum_samples:
        window = samples[at : at + processor.window_samples]
        if at + window.size < samples.size:
            window = window[: _pause(window, processor.sampling_rate)]
        heard = listener.hear(window, timed=False)
        if heard is not None:
            whole = _Stretch(0.0, window.size / processor.sampling_rate, heard.tokens)
            yield from _segments(listener, [whole], at, window.size)
        at += window.size


def _pause(window: FloatArray, rate: int) -> int:
    """Sample in the middle of the quietest stretch of the last third of a window."""
    earliest = round(window.size * (1 - _PAUSE_SHARE))
    length = min(round(_PAUSE_SECONDS * rate), (window.size - earliest) // 2)
    energy = np.cumsum(np.square(window[earliest:], dtype=np.float64))
    quietest = int(np.argmin(energy[length:] - energy[:-length]))
    return earliest + quietest + length // 2


@dataclass(frozen=True)
class _Stretch:
    """Text between two times, in seconds of its window; `end` is None where no time closes it."""

    start: float
    end: float | None
    tokens: tuple[int, ...]


def _follow_times(listener: Listener[State], samples: FloatArray) -> Iterator[Segment]:
    """A segment for each stretch of text between two times.

    A model that ends its first text without the time that closes it was never taught to write times, though
    its vocabulary has them: what it says of them is chance, and windows are cut in pauses.
    """
    processor = listener.processor
    at, taught = 0, False
    while at == 0 or samples.size - at >= processor.minimum_samples:
        window = samples[at : at + processor.window_samples]
        heard = listener.hear(window, timed=True)
        advance = window.size
        if heard is not None:
            stretches = _stretches(heard.tokens, processor)
            taught = taught or any(stretch.end is not None for stretch in stretches)
            if stretches and heard.ended and not taught:
                yield from _cut_in_pauses(listener, samples, at)
                return
            if not heard.ended or at + window.size < samples.size:
                advance = _advance(heard.tokens, stretches, processor, window.size)
            if advance < window.size:
                stretches = [stretch for stretch in stretches if stretch.end is not None]
            yield from _segments(listener, stretches, at, window.size)
        at += advance


def _stretches(tokens: Iterable[int], processor: TokenProcessor) -> list[_Stretch]:
    """Text by text, with the times around it."""
    first = processor.first_time
    assert first is not None
    found: list[_Stretch] = []
    start, text = 0.0, []
    for token in tokens:
        if token < first:
            text.append(token)
            continue
        time = (token - first) * processor.seconds_per_time
        if text:
            found.append(_Stretch(start, time, tuple(text)))
        start, text = time, []
    return [*found, _Stretch(start, None, tuple(text))] if text else found


def _advance(
    tokens: tuple[int, ...], stretches: list[_Stretch], processor: TokenProcessor, window: int
) -> int:
    """Samples from the beginning of a window to that of the next.

    A window that ends with a single time has nothing after it. One that ends inside a stretch, or at the
    beginning of one, is heard again from there.
    """
    first = processor.first_time
    assert first is not None
    closed = [stretch.end for stretch in stretches if stretch.end is not None]
    if not closed or (tokens[-1] >= first and tokens[-2] < first):
        return window
    advance = min(round(closed[-1] * processor.sampling_rate), window)
    return advance if advance >= _LEAST_ADVANCE * processor.window_samples else window


def _segments(
    listener: Listener[State], stretches: Iterable[_Stretch], at: int, window: int
) -> Iterator[Segment]:
    """Those with a text, in seconds of the recording; `at` and `window` are samples."""
    processor = listener.processor
    seconds = window / processor.sampling_rate
    for stretch in stretches:
        text = processor.text(stretch.tokens).strip()
        listener.before += stretch.tokens
        if text:
            times = (min(time, seconds) for time in (stretch.start, stretch.end or seconds))
            start, end = (round(at / processor.sampling_rate + time, 3) for time in times)
            yield Segment(start, end, text)


def _join(texts: Iterable[str], language: str | None) -> str:
    return ("" if language in _WRITTEN_WITHOUT_SPACES else " ").join(texts)
