"""What a recogniser makes up is told from what people say."""

from __future__ import annotations

import numpy as np
import pytest

from bitvox.benchmarks.inventions import is_silent, loops

RATE = 16_000


@pytest.mark.parametrize(
    "text",
    [
        "thank you thank you thank you thank you",
        "and then, and then. And then and then",
        "so the so the so the so the end",
        "no no no no",
        "a" * 200,
        "我们" * 40,
        "one two three four five six seven eight " * 4,
    ],
)
def test_text_that_repeats_itself_is_a_loop(text: str) -> None:
    assert loops(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no no no",
        "it was the best of times, it was the worst of times, it was the age of wisdom",
        "five five one two five five one two",
        "one two one three one two one three one two one four",
    ],
)
def test_text_that_people_say_is_none(text: str) -> None:
    assert not loops(text)


def test_a_clip_is_silent_where_nothing_in_it_is_loud() -> None:
    hush = (9e-4 * np.sin(0.3 * np.arange(2 * RATE))).astype(np.float32)
    assert is_silent(hush, RATE)
    assert is_silent(np.zeros(10, np.float32), RATE)
    word = hush.copy()
    word[RATE : RATE + 1600] *= 10
    assert not is_silent(word, RATE)
    assert is_silent(word[:RATE], RATE)
