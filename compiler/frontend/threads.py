"""One thread for all that a plan's numbers depend on: a sum that threads share differs in its last digits.

Work is spread over the cores by giving each its own clip instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@contextmanager
def single_threaded() -> Iterator[int]:
    """Inside the block torch computes on one thread; gives the number of threads that it had before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


def side_by_side(function: Callable[[_Item], _Result], items: Iterable[_Item], threads: int) -> list[_Result]:
    """The results in the order of the items, at most `threads` of them under way at once.

    Inside `single_threaded` each is computed on one thread, so that `threads` changes the time alone.
    Gradients and inference modes of the caller do not reach the function.
    """
    if threads == 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(threads) as executor:
        return list(executor.map(function, items))
