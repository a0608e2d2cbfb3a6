"""What the sites of a model wrote, kept: a pass over the same inputs with one site changed starts there.

Sites that run before it write what they wrote. Their layers answer with that, and only what lies between them
is computed again; nothing of a result changes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from bitvox.compiler.frontend.model import Site

HELD = 2**29
"""Bytes that are kept at most, of the sites that run first: those of wav2vec2-base write 32 MB a second."""

_running = threading.local()


@contextmanager
def running(number: int) -> Iterator[None]:
    """Inside the block this thread runs the pass of that number."""
    _running.number = number
    try:
        yield
    finally:
        del _running.number


class Recall:
    """What sites (in execution order) wrote in some passes of a module."""

    def __init__(self, sites: Sequence[Site], passes: int) -> None:
        self._sites = sites
        self._room = [HELD // passes] * passes
        self._written: list[dict[str, Tensor]] = [{} for _ in range(passes)]

    @contextmanager
    def recording(self, module: torch.nn.Module) -> Iterator[None]:
        """Inside the block what each site writes is kept, in every pass that is `running`."""

        def hook_of(name: str) -> Callable[[torch.nn.Module, object, Tensor], None]:
            def keep(_module: torch.nn.Module, _inputs: object, output: Tensor) -> None:
                number = _running.number
                self._room[number] -= output.nbytes
                if self._room[number] >= 0:
                    self._written[number][name] = output.clone()

            return keep

        handles = [
            module.get_submodule(site.name).register_forward_hook(hook_of(site.name)) for site in self._sites
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def before(self, module: torch.nn.Module, changed: Site) -> Iterator[None]:
        """Inside the block sites that run before a changed one are not computed, in passes of `module`."""

        def answer_of(name: str) -> Callable[[Tensor], Tensor]:
            # A copy: the next layer may work in place.
            return lambda _values: self._written[_running.number][name].clone()

        # What looks up rows of a tied weight runs before every site.
        names = [] if changed.tied else self._before(changed)
        layers = [module.get_submodule(name) for name in names]
        for layer, name in zip(layers, names, strict=True):
            layer.forward = answer_of(name)
        try:
            yield
        finally:
            for layer in layers:
                del layer.forward

    def _before(self, changed: Site) -> list[str]:
        earlier = self._sites[: self._sites.index(changed)]
        return [site.name for site in earlier if all(site.name in one for one in self._written)]
