"""What a model that writes token after token is told of its input and its tokens, whichever family it is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError, field_validator, model_validator

from bitvox.compiler.frontend.byte_tokens import join_pieces, unpack_pieces
from bitvox.compiler.frontend.decoding import DecodingOptions, Task, Transcription
from bitvox.compiler.frontend.graph_decoder import MAX_ROWS, decoder_of
from bitvox.compiler.frontend.long_form import Listener, transcribe
from bitvox.compiler.frontend.processor_base import Processor
from bitvox.compiler.frontend.session import Array, Session
from bitvox.compiler.frontend.whisper_features import WindowLogMel
from bitvox.errors import InputError

FloatArray = npt.NDArray[np.float32]

# Half of them may hold the text before; a prompt has four tokens.
_LEAST_POSITIONS = 16

# People say two to five tokens a second.
_LOOP_TOKENS, _LOOP_TOKENS_PER_SECOND = 16, 10

# Tokens, the prompt's steps not counted, that show a session's step at work: a prompt, then single tokens.
_RETRACED = 6


class TokenProcessor(Processor):
    """Tokens and prompts of one checkpoint: Whisper's, of which others lack a part.

    Attributes:
        mel: How a window of samples becomes features; None of a model that reads the waveform.
        vocabulary: Bytes of every token, by `pack_pieces`; none of tokens that never appear in text.
        positions: Tokens that the decoder can read, prompt included.
        max_tokens: The most tokens that it writes of a window.
        start: Token that every transcript begins with; `end`: that it ends with.
        previous: Token before the text of the window before; None where there is none.
        no_speech: Token whose probability after `start` is that of a window without speech.
        no_timestamps: Token of a prompt for text without times; the tokens after it are times, one every two
            frames. None of a checkpoint that writes no times.
        last_first_time: The greatest number of a time token that text may begin with.
        languages: Token of each language, by its code; empty where the checkpoint knows one only.
        language_names: Code of each language, by its English names.
        language: Code of the language that the checkpoint takes where none is asked for; None: detected.
        tasks: Token of each task; empty where the checkpoint knows one only.
        suppressed: Tokens that are never written; `suppressed_first`: that are not the first.
    """

    mel: WindowLogMel | None = None
    vocabulary: str
    positions: Annotated[int, Field(ge=_LEAST_POSITIONS)]
    max_tokens: Annotated[int, Field(ge=1)]
    start: int
    end: int
    previous: int | None = None
    no_speech: int | None = None
    no_timestamps: int | None = None
    last_first_time: Annotated[int, Field(ge=0)] | None = None
    languages: dict[str, int] = Field(default_factory=dict)
    language_names: dict[str, str] = Field(default_factory=dict)
    language: str | None = None
    tasks: dict[Task, int] = Field(default_factory=dict)
    suppressed: tuple[int, ...] = ()
    suppressed_first: tuple[int, ...] = ()

    @field_validator("vocabulary")
    @classmethod
    def _whole(cls, vocabulary: str) -> str:
        try:
            unpack_pieces(vocabulary)
        except OSError as error:
            raise ValueError(str(error)) from None
        return vocabulary

    @model_validator(mode="after")
    def _known(self) -> Self:
        single = ("start", "end", "previous", "no_speech", "no_timestamps")
        numbers = {name: getattr(self, name) for name in single}
        numbers |= {f"language {code!r}": number for code, number in self.languages.items()}
        numbers |= {f"task {task!r}": number for task, number in self.tasks.items()}
        for part in ("suppressed", "suppressed_first"):
            numbers |= {f"{part} {number}": number for number in getattr(self, part)}
        for name, number in numbers.items():
            if number is not None and not 0 <= number < self.outputs:
                raise ValueError(f"{name} is token {number}, there are {self.outputs}")
        return self

    @property
    def outputs(self) -> int:
        """Number of tokens."""
        return len(unpack_pieces(self.vocabulary))

    @property
    @abstractmethod
    def window_samples(self) -> int:
        """Samples of a window."""

    @property
    def first_time(self) -> int | None:
        """Token of time 0, from which on all tokens are times; None where there are none."""
        return None if self.no_timestamps is None else self.no_timestamps + 1

    @property
    def seconds_per_time(self) -> float:
        """Seconds from one time token to the next: a position of the encoder."""
        return self.samples_per_frame / self.sampling_rate

    def text(self, tokens: Iterable[int]) -> str:
        """What tokens say, without prompts and times; most vocabularies put a space before each word."""
        pieces = unpack_pieces(self.vocabulary)
        return join_pieces(pieces[token] for token in tokens)

    def decode(self, logits: FloatArray) -> str:
        """Text of the likeliest token that may be written at each row of logits [tokens, vocabulary]."""
        allowed = logits.copy()
        allowed[:, self.suppressed] = -np.inf
        allowed[:1, self.suppressed_first] = -np.inf
        return self.text(allowed.argmax(axis=-1).tolist()).strip()

    def inputs(self, session: Session, samples: FloatArray) -> tuple[Array, ...]:
        """Model input [1, ...], prompt [1, p], and the tokens [1, n] that a session writes greedily.

        Of a window without speech: the token that ends it. A text that runs on far longer than speech does
        is cut off: it is a loop, and shows nothing new.
        """
        seconds = min(samples.size, self.window_samples) / self.sampling_rate
        most = min(self.max_tokens, _LOOP_TOKENS + round(_LOOP_TOKENS_PER_SECOND * seconds))
        options = DecodingOptions(max_tokens=most)
        listener = Listener(decoder_of(session), self, options, self.language)
        window = samples[: self.window_samples]
        heard = listener.hear(window, timed=False)
        written = () if heard is None else heard.tokens
        ended = (self.end,) if heard is None or heard.ended else ()
        prompt = (self.start, *self.prompt(listener.language, options.task, timestamps=False))
        tokens = (np.array([part], np.int64) for part in (prompt, (*written, *ended)))
        return (self.features(window)[None], *tokens)

    def retrace(self, session: Session, inputs: Sequence[Array]) -> FloatArray:
        """Logits [tokens, vocabulary] of the first steps of another session on the `inputs` of the module."""
        features, prompt, tokens = inputs
        return self._follow(session, features, prompt, tokens[:, :_RETRACED])

    def logits(self, session: Session, samples: FloatArray) -> FloatArray:
        """Logits [tokens, vocabulary] of the greedy decoding of the first window of samples [T]."""
        return self._follow(session, *self.inputs(session, samples))

    def _follow(self, session: Session, features: Array, prompt: Array, tokens: Array) -> FloatArray:
        graphs = decoder_of(session)
        logits, state = graphs.step(graphs.encode(features[0]), prompt)
        rows = [logits]
        for column in range(tokens.shape[1] - 1):
            logits, state = graphs.step(state, tokens[:, column : column + 1])
            rows.append(logits)
        return np.concatenate(rows)

    def transcribe(self, session: Session, samples: FloatArray) -> str:
        """What samples [T] of any length say, decoded as is usual."""
        return self.listen(session, samples).text

    def listen(
        self, session: Session, samples: FloatArray, options: DecodingOptions | None = None
    ) -> Transcription:
        """What samples [T] of any length say, as it is asked for, and when; raises as `check` does."""
        return transcribe(decoder_of(session), self, samples, options)

    def language_of(self, options: DecodingOptions) -> str | None:
        """Code of the language to decode in; None: to be detected, or the only one.

        Raises InputError, one line, for a language that the checkpoint does not know.
        """
        if options.language is None:
            return self.language
        if not self.languages:
            raise InputError(f"language {options.language!r}: this model knows one language; leave it out")
        asked = options.language.strip().lower()
        code = self.language_names.get(asked, asked)
        if code not in self.languages:
            known = ", ".join(sorted(self.languages))
            raise InputError(f"language {options.language!r}: this model knows {known}")
        return code

    def check(self, options: DecodingOptions) -> None:
        """Raise InputError, one line, where this checkpoint cannot do what is asked."""
        self.language_of(options)
        if options.task not in (self.tasks or ("transcribe",)):
            known = ", ".join(self.tasks) or "transcribe"
            raise InputError(f"task {options.task!r}: this model knows {known}")
        if options.timestamps and self.no_timestamps is None:
            raise InputError("timestamps: this model writes none; leave them out")
        if not 1 <= options.beams <= MAX_ROWS:
            raise InputError(f"beams {options.beams}: a search keeps 1 to {MAX_ROWS}")
        if options.max_tokens is not None and options.max_tokens < 1:
            raise InputError(f"max_tokens {options.max_tokens}: a transcript may have at least 1")
        if options.previous_text and self.previous is None:
            raise InputError("previous_text: this model has no token for it; leave it out")

    def prompt(self, language: str | None, task: Task, timestamps: bool) -> tuple[int, ...]:
        """Tokens between `start` and what is written, for a language by its code."""
        tokens = [self.languages[language]] if language is not None else []
        if task in self.tasks:
            tokens.append(self.tasks[task])
        if self.no_timestamps is not None and not timestamps:
            tokens.append(self.no_timestamps)
        return tuple(tokens)


@contextmanager
def files_that_fit(folder: Path) -> Iterator[None]:
    """Turns what a processor finds wrong with a checkpoint's values into an InputError of one line."""
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = "".join(f"{part}: " for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        raise InputError(f"model '{folder}': its files do not fit together: {where}{said}") from None


class WaveformTokenProcessor(TokenProcessor):
    """Of a model that reads samples.

    Attributes:
        window_seconds: Longest clip that is heard at once; a longer one is cut in pauses.
    """

    window_seconds: Annotated[int, Field(ge=1)]

    @property
    def window_samples(self) -> int:
        """Samples of a window."""
        return self.window_seconds * self.sampling_rate
