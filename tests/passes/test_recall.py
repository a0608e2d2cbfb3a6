"""A pass that starts at the site that changed writes what a whole one writes, bit for bit, in any family."""

from pathlib import Path

import numpy as np
import pytest
import torch
from encoder_decoders import DECODERS

from bitvox.compiler.frontend.loading import load_model
from bitvox.compiler.frontend.model import SpeechModel
from bitvox.compiler.passes import recall
from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.divergence import Divergence
from support import PackedCosts
from tiny_families import TINY, tiny_family


def _context(model: SpeechModel, threads: int = 1) -> PassContext:
    draw = np.random.default_rng(0)
    clips = tuple(0.1 * draw.standard_normal(9000 + 500 * n).astype(np.float32) for n in range(2))
    return PassContext(model, clips, PackedCosts(), threads=threads)


def _check(model: SpeechModel) -> None:
    divergence, moved = Divergence(_context(model, threads=2), 2.0, recalls=True), []
    for group in list(model.share_groups())[::3]:
        layer = model.site_module(group[0])
        handle = layer.register_forward_hook(lambda _module, _inputs, output: output * 1.1 + 0.01)
        try:
            moved.append(divergence.of(model.module))
            assert divergence.of_change(model.module, group[0]) == moved[-1]
        finally:
            handle.remove()
    assert sum(one > 0 for one in moved) > len(moved) / 2
    assert not any("forward" in vars(model.site_module(site)) for site in model.sites)


@pytest.mark.parametrize("name", sorted(TINY))
def test_families(name: str) -> None:
    _check(tiny_family(name))


@pytest.mark.parametrize("name", sorted(DECODERS))
def test_encoder_decoders(name: str, tmp_path: Path) -> None:
    _check(load_model(DECODERS[name].write(tmp_path)))


@pytest.mark.parametrize("room", [2**29, 400_000, 0])
def test_sites_before_the_change_are_not_computed_as_far_as_there_is_room(
    room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_family("hubert")
    monkeypatch.setattr(recall, "HELD", room)
    divergence = Divergence(_context(model), 2.0, recalls=True)
    computed: list[torch.nn.Module] = []
    for kind in (torch.nn.Linear, torch.nn.Conv1d):
        whole = kind.forward
        monkeypatch.setattr(
            kind, "forward", lambda layer, x, whole=whole: computed.append(layer) or whole(layer, x)
        )
    assert divergence.of_change(model.module, model.sites[-1]) == 0
    saved = 2 * len(model.sites) - len(computed)
    assert computed[-1] is model.site_module(model.sites[-1])
    assert saved == 0 if room == 0 else saved > 0
    assert (saved == 2 * len(model.sites) - 2) == (room == 2**29)
