"""Read what a folder in the hub's layout says of Whisper's features, tokens and prompts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor, WhisperTokenizer
from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

from bitvox.compiler.frontend.byte_tokens import pack_pieces, spelled_bytes
from bitvox.compiler.frontend.decoding import Task
from bitvox.compiler.frontend.token_processor import files_that_fit
from bitvox.compiler.frontend.whisper_features import WindowLogMel
from bitvox.compiler.frontend.whisper_processor import WhisperProcessor
from bitvox.errors import InputError

_FRAMES_PER_POSITION = 2  # the stride of the encoder's second convolution, fixed in transformers
_TASKS: tuple[Task, ...] = ("transcribe", "translate")
_NO_SPEECH = ("<|nospeech|>", "<|nocaptions|>")
_LANGUAGE = re.compile(r"<\|([a-z]{2,3})\|>")
_TIME = re.compile(r"<\|\d+\.\d+\|>")
_TOKENIZER_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"))


def read_whisper_processor(folder: Path, config: WhisperConfig) -> WhisperProcessor:
    """The processor of a checkpoint.

    What to suppress and how long a text may be is taken from generation_config.json, or config.json where
    there is none; tokens of languages, tasks and times are found by their names where neither tells.

    Args:
        folder: Checkpoint in the hub's layout, with the files of its tokenizer and feature extractor.
        config: Its config.json.

    Raises:
        InputError: A file is missing, or two of them contradict each other.
    """
    with files_that_fit(folder):
        return _read(folder, config)


def _read(folder: Path, config: WhisperConfig) -> WhisperProcessor:
    mel = _mel(folder, config)
    tokens = _Tokens(folder, config)
    settings = _generation_settings(folder, config)
    prompt = _forced_prompt(settings, config)
    languages, tasks = _choices(tokens, settings, prompt)
    no_timestamps = _given(settings, "no_timestamps_token_id", tokens.named.get("<|notimestamps|>"))
    return WhisperProcessor(
        sampling_rate=mel.sampling_rate,
        normalise=False,
        minimum_samples=mel.points,
        samples_per_frame=mel.hop * _FRAMES_PER_POSITION,
        mel=mel,
        vocabulary=pack_pieces(tokens.pieces),
        positions=config.max_target_positions,
        max_tokens=_max_tokens(settings, config),
        start=tokens.required("decoder_start_token_id", settings.decoder_start_token_id),
        end=tokens.required("eos_token_id", _first(settings.eos_token_id)),
        previous=_given(settings, "prev_sot_token_id", tokens.named.get("<|startofprev|>")),
        no_speech=_named(tokens, _NO_SPEECH),
        no_timestamps=no_timestamps if _writes_times(no_timestamps, config) else None,
        last_first_time=_given(settings, "max_initial_timestamp_index", None),
        languages=languages,
        language_names={name: code for name, code in TO_LANGUAGE_CODE.items() if code in languages},
        language=_language(languages, settings, prompt),
        tasks=tasks,
        suppressed=tokens.known(settings.suppress_tokens),
        suppressed_first=tokens.known(settings.begin_suppress_tokens),
    )


class _Tokens:
    """The tokenizer of a folder.

    Attributes:
        pieces: Bytes that each of the model's tokens adds to a text.
        named: Number of each special token, by its name.
    """

    def __init__(self, folder: Path, config: WhisperConfig) -> None:
        if not any(all((folder / name).is_file() for name in names) for names in _TOKENIZER_FILES):
            raise InputError(
                f"model '{folder}': no tokenizer.json, nor vocab.json with merges.txt; "
                "a Whisper checkpoint needs its tokenizer's files"
            )
        tokenizer: Any = WhisperTokenizer.from_pretrained(folder, local_files_only=True)
        spelled: dict[str, int] = tokenizer.get_vocab()
        if max(spelled.values()) >= config.vocab_size:
            raise InputError(
                f"model '{folder}': the tokenizer has tokens up to {max(spelled.values())}, the head has "
                f"{config.vocab_size} outputs"
            )
        self.named = {token.content: number for number, token in tokenizer.added_tokens_decoder.items()}
        silent = set(tokenizer.all_special_ids)
        silent |= {number for name, number in self.named.items() if _TIME.fullmatch(name)}
        silent |= {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.pieces = [b""] * config.vocab_size
        for token, number in spelled.items():
            self.pieces[number] = b"" if number in silent else spelled_bytes(token)
        self._folder = folder

    def required(self, name: str, number: int | None) -> int:
        """The token of a setting that there must be."""
        if number is None:
            raise InputError(f"model '{self._folder}': no {name} in generation_config.json or config.json")
        return number

    def known(self, numbers: Iterable[int] | None) -> tuple[int, ...]:
        """Those of the numbers that are tokens: transformers' defaults belong to a large vocabulary."""
        return tuple(number for number in numbers or () if 0 <= number < len(self.pieces))


def _mel(folder: Path, config: WhisperConfig) -> WindowLogMel:
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        raise InputError(f"model '{folder}': no preprocessor_config.json; the sampling rate is not known")
    extractor = WhisperFeatureExtractor.from_pretrained(folder, local_files_only=True)
    frames = _FRAMES_PER_POSITION * config.max_source_positions
    made = extractor.feature_size, extractor.nb_max_frames
    if made != (config.num_mel_bins, frames):
        raise InputError(
            f"model '{folder}': preprocessor_config.json makes {made[0]} features of {made[1]} frames, "
            f"config.json asks for {config.num_mel_bins} of {frames}"
        )
    return WindowLogMel(
        sampling_rate=extractor.sampling_rate,
        points=extractor.n_fft,
        hop=extractor.hop_length,
        bins=extractor.feature_size,
        frames=frames,
    )


def _generation_settings(folder: Path, config: WhisperConfig) -> Any:
    """The settings that transformers' `generate` would take."""
    if (folder / "generation_config.json").is_file():
        return GenerationConfig.from_pretrained(folder, local_files_only=True)
    return GenerationConfig.from_model_config(config)


def _given(settings: Any, name: str, otherwise: Any) -> Any:
    """A setting that may be absent or null."""
    value = getattr(settings, name, None)
    return otherwise if value is None else value


def _first(value: int | Sequence[int] | None) -> int | None:
    return value[0] if isinstance(value, Sequence) else value


def _named(tokens: _Tokens, names: Iterable[str]) -> int | None:
    return next((tokens.named[name] for name in names if name in tokens.named), None)


def _max_tokens(settings: Any, config: WhisperConfig) -> int:
    return int(settings.max_new_tokens or settings.max_length or config.max_target_positions)


def _writes_times(no_timestamps: int | None, config: WhisperConfig) -> bool:
    """Whether there is a time token for every second frame of a window, ends included."""
    return no_timestamps is not None and config.vocab_size - no_timestamps > config.max_source_positions + 1


def _forced_prompt(settings: Any, config: WhisperConfig) -> list[int | None] | None:
    """The prompt after the first token that old checkpoints force; None where nothing is said of it."""
    forced = _given(settings, "forced_decoder_ids", getattr(config, "forced_decoder_ids", None))
    return None if forced is None else [token for _, token in sorted(forced, key=lambda pair: pair[0])]


def _choices(
    tokens: _Tokens, settings: Any, prompt: list[int | None] | None
) -> tuple[dict[str, int], dict[Task, int]]:
    """Tokens of the languages and the tasks that a prompt names; none of a checkpoint of one language."""
    named = {
        match[1]: number for name, number in tokens.named.items() if (match := _LANGUAGE.fullmatch(name))
    }
    told = _given(settings, "lang_to_id", None)
    if told is not None:
        named = {name.strip("<|>"): int(number) for name, number in told.items()}
    many = _given(settings, "is_multilingual", None)
    if many is None:
        # A checkpoint from before generation_config.json says so by what it forces.
        many = prompt is None or prompt[:1] == [None] or prompt[0] in named.values()
    if not many or not named:
        return {}, {}
    tasks = _given(settings, "task_to_id", None) or {
        task: tokens.named[f"<|{task}|>"] for task in _TASKS if f"<|{task}|>" in tokens.named
    }
    return named, {task: int(tasks[task]) for task in _TASKS if task in tasks}


def _language(languages: dict[str, int], settings: Any, prompt: list[int | None] | None) -> str | None:
    """Code of the language that the checkpoint decodes in where none is asked for."""
    forced = next((code for code, number in languages.items() if prompt and number == prompt[0]), None)
    asked = str(_given(settings, "language", "")).strip("<|>").lower()
    code = TO_LANGUAGE_CODE.get(asked, asked)
    return code if code in languages else forced
