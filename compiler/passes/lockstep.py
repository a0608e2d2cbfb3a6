"""Forward passes that wait for each other before sites, so that a site may change before any has run it.

Passes of many clips side by side are what makes sequential work linear in the number of sites: every layer
runs once a clip, whatever is decided on the way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from bitvox.compiler.frontend.model import Site
from bitvox.compiler.frontend.threads import side_by_side

_running = threading.local()


class _Stopped(BaseException):
    """Ends a pass that nobody waits for any more."""


class _Pass:
    """One forward pass in a thread of its own, which rests whenever it is not asked to go on."""

    def __init__(self, module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._module, self._inputs = module, inputs
        self._go, self._rests = threading.Semaphore(0), threading.Semaphore(0)
        self._met: set[str] = set()
        self._stopping = False
        self._error: BaseException | None = None
        self._at: tuple[str, Tensor] | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def advance(self, site: str) -> Tensor:
        """Go on to `site`, from the start to any; what it is about to read."""
        joins = not self._met
        while True:
            self._at = None
            self._go.release()
            self._rests.acquire()
            if self._error is not None:
                raise self._error
            if self._at is not None and self._at[0] == site:
                return self._at[1]
            if self._at is None or not joins:
                raise ValueError(f"site {site}: not where the pass stopped ({self._at and self._at[0]})")

    def stop(self) -> None:
        """Give up what is left."""
        self._stopping = True
        self._go.release()
        self._thread.join()

    def rest_at(self, site: str, values: Tensor) -> None:
        """Called by the hook of a site, in the pass's thread: wait the first time that it is met."""
        if site in self._met:
            return
        self._met.add(site)
        self._at = (site, values)
        self._rests.release()
        self._wait()

    def _wait(self) -> None:
        self._go.acquire()
        if self._stopping:
            raise _Stopped

    @torch.inference_mode()
    def _run(self) -> None:
        _running.one = self
        try:
            self._wait()
            self._module(*self._inputs)
        except _Stopped:
            return
        except BaseException as error:
            self._error = error
        self._rests.release()


class Lockstep:
    """Passes over the same module, all before the same site."""

    def __init__(self, module: torch.nn.Module, inputs: Sequence[tuple[Tensor, ...]], threads: int) -> None:
        self._passes = [_Pass(module, one) for one in inputs]
        self._threads = threads

    def advance(self, site: Site, numbers: Iterable[int]) -> list[Tensor]:
        """Run these passes up to the site; its input in each.

        For those that were run before it is the next of the sites, others are at their start.
        """
        chosen = [self._passes[number] for number in numbers]
        return side_by_side(lambda one: one.advance(site.name), chosen, self._threads)

    def stop(self) -> None:
        """Give up what is left of the passes."""
        for one in self._passes:
            one.stop()


@contextmanager
def in_lockstep(
    module: torch.nn.Module, sites: Sequence[Site], inputs: Sequence[tuple[Tensor, ...]], threads: int
) -> Iterator[Lockstep]:
    """Passes of `module` over `inputs`, which wait before each of `sites` (in execution order).

    At most `threads` of them run at once, each on one thread; memory holds what every one of them is in the
    middle of.
    """

    def hook_of(name: str) -> Callable[[torch.nn.Module, tuple[Tensor, ...]], None]:
        def rest(_module: torch.nn.Module, values: tuple[Tensor, ...]) -> None:
            _running.one.rest_at(name, values[0])

        return rest

    handles = [
        module.get_submodule(site.name).register_forward_pre_hook(hook_of(site.name)) for site in sites
    ]
    passes = Lockstep(module, inputs, threads)
    try:
        yield passes
    finally:
        passes.stop()
        for handle in handles:
            handle.remove()
