"""Texts and voices for synthetic English speech, spoken by espeak-ng and repeatable from a seed."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

SAMPLE_RATE = 16_000


def words_of(text: str) -> tuple[str, ...]:
    """The blank-separated words of a text."""
    return tuple(text.split())


DIGITS = words_of("ZERO ONE TWO THREE FOUR FIVE SIX SEVEN EIGHT NINE OH")
TEENS = words_of("TEN ELEVEN TWELVE THIRTEEN FOURTEEN FIFTEEN SIXTEEN SEVENTEEN EIGHTEEN NINETEEN")
TENS = words_of("TWENTY THIRTY FORTY FIFTY SIXTY SEVENTY EIGHTY NINETY")
UNIT_ORDINALS = words_of("FIRST SECOND THIRD FOURTH FIFTH SIXTH SEVENTH EIGHTH NINTH")
ORDINALS = [
    *UNIT_ORDINALS,
    *words_of("TENTH ELEVENTH TWELFTH THIRTEENTH FOURTEENTH FIFTEENTH SIXTEENTH SEVENTEENTH"),
    *words_of("EIGHTEENTH NINETEENTH TWENTIETH THIRTIETH"),
    *(f"TWENTY {unit}" for unit in UNIT_ORDINALS),
]
MONTHS = words_of("JANUARY FEBRUARY MARCH APRIL MAY JUNE JULY AUGUST SEPTEMBER OCTOBER NOVEMBER DECEMBER")
COMMANDS = words_of("YES NO GO HELP STOP START REPEAT ERASE ENTER RUBOUT")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
NAMES = words_of(
    "JAMES MARY ROBERT PATRICIA JOHN LINDA MICHAEL BARBARA DAVID ELIZABETH WILLIAM SUSAN RICHARD "
    "JESSICA JOSEPH SARAH THOMAS KAREN CHARLES LISA DANIEL NANCY MATTHEW BETTY ANTHONY MARGARET MARK "
    "SANDRA DONALD ASHLEY STEVEN KIMBERLY PAUL EMILY ANDREW DONNA JOSHUA MICHELLE KENNETH CAROL KEVIN "
    "AMANDA BRIAN DOROTHY GEORGE MELISSA EDWARD DEBORAH RONALD STEPHANIE TIMOTHY REBECCA JASON SHARON "
    "JEFFREY LAURA RYAN CYNTHIA JACOB KATHLEEN GARY HELEN NICHOLAS ANNA ERIC PAMELA STEPHEN RUTH FRANK "
    "SMITH JOHNSON WILLIAMS BROWN JONES GARCIA MILLER DAVIS WILSON ANDERSON TAYLOR MOORE JACKSON MARTIN "
    "LEE PEREZ THOMPSON WHITE HARRIS CLARK LEWIS ROBINSON WALKER YOUNG ALLEN KING WRIGHT SCOTT TORRES "
    "HILL FLORES GREEN ADAMS BAKER HALL RIVERA CAMPBELL MITCHELL CARTER ROBERTS PHILLIPS EVANS TURNER "
    "OAK MAPLE CEDAR WASHINGTON LINCOLN CHESTNUT WALNUT SPRUCE FRANKLIN JEFFERSON MADISON COLUMBIA DRIVE "
    "AVENUE STREET ROAD LANE COURT BOSTON CHICAGO DENVER SEATTLE DALLAS PHOENIX AUSTIN ATLANTA MEMPHIS"
)
ACCENTS = ("en-us", "en-us", "en-us", "en-us", "en-us", "en-gb-x-rp", "en-gb", "en-gb-scotland", "en-029")
# The demo's voices (make_voices.py) use the variants f3, m3 and nothing like them may be trained on.
HELD_OUT_VARIANTS = frozenset({"f3", "m3"})
VARIANTS = words_of(
    "f1 f2 f4 f5 m1 m2 m4 m5 m6 m7 m8 klatt klatt2 klatt3 klatt4 adam Alex Alicia Andrea Andy Annie aunty "
    "belinda benjamin boris caleb david ed edward2 Gene grandma grandpa Henrique Hugo iven2 Jacky john "
    "Lee linda Marco max Michael michel Mike norbert pablo paul quincy rob robert sandro shelby steph "
    "steph2 travis victor zac Diogo Denis Mr_serious anika"
)


@dataclass(frozen=True)
class Voice:
    """One espeak-ng voice setting: speed in words per minute, pitch 0 to 99, gap in units of 10 ms."""

    name: str
    variant: str
    speed: int
    pitch: int
    gap: int = 0


@dataclass(frozen=True)
class Utterance:
    """A text in the model's alphabet and the voice that speaks it."""

    text: str
    voice: Voice


def espeak_available() -> bool:
    """Whether the espeak-ng program can be called."""
    return shutil.which("espeak-ng") is not None


def number_words(rng: random.Random) -> str:
    """One number the way AN4's speakers say it: digits, pairs, or with hundreds and thousands."""
    below_hundred = _below_hundred(rng)
    digit = rng.choice(DIGITS[1:10])
    forms = (
        below_hundred,
        rng.choice(DIGITS),
        " ".join(rng.choice(DIGITS) for _ in range(rng.randint(2, 5))),
        f"{below_hundred} {_below_hundred(rng)}",
        f"{digit} {below_hundred}",
        f"{digit} HUNDRED {rng.choice((below_hundred, 'AND ' + below_hundred, ''))}".strip(),
        f"{digit} THOUSAND {digit} HUNDRED {below_hundred}",
    )
    return rng.choices(forms, weights=(5, 4, 5, 3, 3, 1, 0.5))[0]


def _below_hundred(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.25:
        return rng.choice(TEENS)
    ten = rng.choice(TENS)
    return ten if kind < 0.45 else f"{ten} {rng.choice(DIGITS[1:10])}"


def _date(rng: random.Random) -> str:
    year = rng.choice((f"NINETEEN {_below_hundred(rng)}", _below_hundred(rng), ""))
    if rng.random() < 0.7:
        return f"{rng.choice(MONTHS)} {rng.choice(ORDINALS)} {year}".strip()
    return f"{_below_hundred(rng)} {_below_hundred(rng)} {_below_hundred(rng)}"


def _random_letters(rng: random.Random) -> str:
    letters = " ".join(rng.choice(LETTERS) for _ in range(rng.randint(2, 6)))
    return f"{letters} {number_words(rng)}" if rng.random() < 0.6 else letters


def _spelled(rng: random.Random, words: Sequence[str]) -> str:
    word = rng.choice(NAMES) if rng.random() < 0.5 else rng.choice(words)
    if rng.random() < 0.12:
        word += rng.choice(words)
    return " ".join(word.replace("'", "")[:14])


def spelling_text(rng: random.Random, words: Sequence[str]) -> str:
    """One AN4-like text; `words` (non-empty, upper case) are spelled letter by letter."""
    kind = rng.random()
    if kind < 0.34:
        return _spelled(rng, words)
    if kind < 0.58:
        prefix = rng.choice(("", "", "RUBOUT ", "ERASE ", "ENTER "))
        return prefix + _random_letters(rng)
    if kind < 0.66:
        return f"ENTER {number_words(rng)}"
    if kind < 0.82:
        return number_words(rng)
    if kind < 0.89:
        return " ".join(rng.choice(DIGITS) for _ in range(rng.choice((5, 5, 7, 7, 7, 10))))
    if kind < 0.96:
        return _date(rng)
    return rng.choice(COMMANDS)


class SentenceChain:
    """Second-order word chain over real transcripts: new sentences from known words."""

    def __init__(self, sentences: Sequence[str]) -> None:
        self._following: dict[tuple[str, str], list[str]] = defaultdict(list)
        for sentence in sentences:
            words = ["", "", *sentence.split(), ""]
            for first, second, third in zip(words, words[1:], words[2:], strict=False):
                self._following[first, second].append(third)
            # A shared one-word history lets the chain leave the sentence that it copies.
            for second, third in pairwise(words[2:]):
                self._following["*", second].append(third)

    def sample(self, rng: random.Random, longest: int = 12) -> str:
        """One sentence of at most `longest` words."""
        words: list[str] = []
        previous, current = "", ""
        while len(words) < longest:
            key = ("*", current) if words and rng.random() < 0.5 else (previous, current)
            word = rng.choice(self._following[key])
            if not word:
                break
            words.append(word)
            previous, current = current, word
        return " ".join(words)


def spoken_form(text: str) -> str:
    """The text as espeak-ng must be given it so that single letters are spelled in the American way."""
    words = []
    for word in text.split():
        special = {"A": "[['eI]]" if _spells(text) else "a", "Z": "zee", "RUBOUT": "rub out"}
        single = len(word) == 1 and word in LETTERS
        words.append(special.get(word, word if single else word.lower()))
    return " ".join(words)


def _spells(text: str) -> bool:
    return len(re.findall(r"\b[B-HJ-Z]\b", text)) > 0 or text == "A"


def random_voice(rng: random.Random) -> Voice:
    """A voice for training; never one of the held-out variants."""
    return Voice(
        name=rng.choice(ACCENTS),
        variant=rng.choice(VARIANTS),
        speed=rng.randint(105, 190),
        pitch=rng.randint(20, 80),
        gap=rng.choice((0, 0, 0, 1, 3, 6, 10)),
    )


def speak(utterance: Utterance) -> NDArray[np.int16]:
    """Audio of one utterance: mono int16 at 16 kHz, shape (samples,)."""
    voice = utterance.voice
    variant = voice.variant.replace("_", " ")
    command = ["espeak-ng", "--stdout", "-v", f"{voice.name}+{variant}", "-s", str(voice.speed)]
    command += ["-p", str(voice.pitch), "-g", str(voice.gap), spoken_form(utterance.text)]
    result = subprocess.run(command, capture_output=True, check=True)
    # espeak-ng streams, so its WAV header holds no length: soundfile needs the data alone.
    raw = np.frombuffer(result.stdout[44 : 44 + (len(result.stdout) - 44) // 2 * 2], dtype="<i2")
    (rate,) = np.frombuffer(result.stdout[24:28], dtype="<u4")
    resampled = soxr.resample(raw.astype(np.float32) / 32768, float(rate), SAMPLE_RATE)
    peak = float(np.max(np.abs(resampled))) if resampled.size else 0.0
    if peak == 0.0:
        raise ValueError(f"voice {voice.name}+{variant}: espeak-ng spoke nothing for {utterance.text!r}")
    return np.round(resampled * (0.5 / peak) * 32767).astype(np.int16)


def word_phonemes(word: str) -> tuple[str, ...]:
    """The American phonemes of one word or letter in espeak-ng's mnemonics, without stress."""
    command = ["espeak-ng", "-v", "en-us", "-q", "-x", "--sep=_", spoken_form(word)]
    spoken = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    marks = str.maketrans("", "", "',;:%=|-")
    return tuple(unit for raw in re.split(r"[_\s]+", spoken) if (unit := raw.translate(marks)))


class PhonemeTable:
    """Phoneme numbers (from 1; 0 is the CTC blank) of every word in a set of texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        words = sorted({word for text in texts for word in text.split()})
        with ThreadPoolExecutor(2) as pool:
            spoken = dict(zip(words, pool.map(word_phonemes, words), strict=True))
        units = sorted({unit for phonemes in spoken.values() for unit in phonemes})
        numbers = {unit: index + 1 for index, unit in enumerate(units)}
        self.size = len(units) + 1
        self._words = {word: [numbers[unit] for unit in spoken[word]] for word in words}

    def encode(self, text: str) -> list[int]:
        """Phoneme numbers of a text made of the table's words."""
        return [number for word in text.split() for number in self._words[word]]


def plan(seed: int, spelling: int, sentences: int, transcripts: Sequence[str]) -> list[Utterance]:
    """Texts and voices of a synthetic set: `spelling` AN4-like texts, then `sentences` general ones."""
    rng = random.Random(seed)
    words = sorted({word for text in transcripts for word in text.split() if len(word) > 2})
    chain = SentenceChain(transcripts)
    texts = [spelling_text(rng, words) for _ in range(spelling)]
    texts += [rng.choice(transcripts) if index % 2 else chain.sample(rng) for index in range(sentences)]
    return [Utterance(text, random_voice(rng)) for text in texts]


def speak_all(utterances: Sequence[Utterance], workers: int = 2) -> list[NDArray[np.int16]]:
    """Audio of every utterance, in order."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(speak, utterances))


def write_audio(path: str, audio: NDArray[np.int16]) -> None:
    """Writes mono 16 kHz audio as Ogg Opus."""
    soundfile.write(path, audio.astype(np.float32) / 32768, SAMPLE_RATE, format="OGG", subtype="OPUS")
