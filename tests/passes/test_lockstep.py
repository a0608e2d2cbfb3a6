import copy
import threading

import pytest
import torch

from bitvox.compiler.passes.lockstep import in_lockstep
from support import tiny_context, tiny_model


def _inputs() -> list[tuple[torch.Tensor, ...]]:
    context = tiny_context()
    return [context.model.inputs(clip) for clip in context.clips]


def test_every_pass_reads_at_every_site_what_it_reads_alone_and_runs_once() -> None:
    model, inputs = tiny_model(), _inputs()
    sites = [group[0] for group in model.share_groups()]
    alone: dict[str, list[torch.Tensor]] = {site.name: [] for site in sites}
    handles = [
        model.site_module(site).register_forward_pre_hook(
            lambda _module, values, name=site.name: alone[name].append(values[0].clone())
        )
        for site in sites
    ]
    with torch.inference_mode():
        for one in inputs:
            model.module(*one)
    for handle in handles:
        handle.remove()
    runs = [0]
    counting = model.site_module(sites[-1]).register_forward_hook(lambda *_: runs.__setitem__(0, runs[0] + 1))
    for threads in (1, 2):
        with in_lockstep(model.module, sites, inputs, threads) as walk:
            for site in sites:
                for clip, values in enumerate(walk.advance(site)):
                    assert torch.equal(values, alone[site.name][clip])
    counting.remove()
    assert runs == [0]  # nobody asked what comes after the last site


def test_a_site_that_changes_on_the_way_changes_what_later_ones_read() -> None:
    model, inputs = tiny_model(), _inputs()
    first, second = (group[0] for group in list(model.share_groups())[:2])
    module = copy.deepcopy(model.module)
    with in_lockstep(module, [first, second], inputs, 1) as walk:
        walk.advance(first)
        module.get_submodule(first.name).weight.data.zero_()
        assert all(values.std(dim=-1).max() == 0 for values in walk.advance(second))


def test_a_failing_pass_says_so_and_no_thread_is_left() -> None:
    model, inputs = tiny_model(), _inputs()
    before = threading.active_count()
    sites = [group[0] for group in model.share_groups()]
    broken = [*inputs[:-1], (torch.zeros(1, 2, 3, 4),)]
    with pytest.raises(RuntimeError), in_lockstep(model.module, sites, broken, 1) as walk:
        for site in sites:
            walk.advance(site)
    with (
        pytest.raises(ValueError, match="not where the pass stopped"),
        in_lockstep(model.module, sites[:2], inputs, 1) as walk,
    ):
        walk.advance(sites[1])
    assert threading.active_count() == before
    assert not model.site_module(sites[0])._forward_pre_hooks
