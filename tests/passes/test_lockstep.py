import copy
import threading

import pytest
import torch

from bitvox.compiler.passes import drift
from bitvox.compiler.passes.drift import input_sizes, walking_together
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
                for clip, values in enumerate(walk.advance(site, range(len(inputs)))):
                    assert torch.equal(values, alone[site.name][clip])
    counting.remove()
    assert runs == [0]  # nobody asked what comes after the last site


def test_a_site_that_changes_on_the_way_changes_what_later_ones_read() -> None:
    model, inputs = tiny_model(), _inputs()
    first, second = (group[0] for group in list(model.share_groups())[:2])
    module = copy.deepcopy(model.module)
    with in_lockstep(module, [first, second], inputs, 1) as walk:
        walk.advance(first, range(len(inputs)))
        module.get_submodule(first.name).weight.data.zero_()
        assert all(values.std(dim=-1).max() == 0 for values in walk.advance(second, range(len(inputs))))


def test_a_clip_that_joins_later_reads_what_it_reads_alone() -> None:
    context, model = tiny_context(), tiny_model()
    sites = [group[0] for group in model.share_groups()]
    with in_lockstep(model.module, sites, _inputs(), 1) as walk:
        together = [walk.advance(site, range(len(context.clips))) for site in sites]
    with in_lockstep(model.module, sites, _inputs(), 1) as walk:
        walk.advance(sites[0], [1])
        assert torch.equal(walk.advance(sites[1], [1])[0], together[1][1])
        for number, site in enumerate(sites[2:], start=2):
            for values, right in zip(walk.advance(site, [0, 1]), together[number], strict=False):
                assert torch.equal(values, right)


def test_clips_walk_together_from_where_there_is_room_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    context = tiny_context()
    sites = [group[0] for group in context.model.share_groups()]
    sizes = dict(input_sizes(context.model, context.model.inputs(context.clips[0])))
    room = 4 * 1.1 * len(context.clips) * min(sizes.values())
    assert room < 4 * 2 * sizes[sites[0]]  # one clip fits before the first site, all of them before another

    def heard() -> list[tuple[torch.Tensor, torch.Tensor]]:
        module, read = copy.deepcopy(context.model.module), []
        with walking_together(context, module, sites) as walk:
            for site in sites:
                moments, drift = walk.reach(site)
                read.append((moments.hessian(0), drift.matrix(0)))
                module.get_submodule(site.name).weight.data.mul_(1.01)
        return read

    whole = heard()
    monkeypatch.setattr(drift, "HELD", room)
    part = heard()
    assert not torch.equal(part[0][0], whole[0][0])
    torch.testing.assert_close(part[-1], whole[-1])


def test_a_failing_pass_says_so_and_no_thread_is_left() -> None:
    model, inputs = tiny_model(), _inputs()
    before = threading.active_count()
    sites = [group[0] for group in model.share_groups()]
    broken = [*inputs[:-1], (torch.zeros(1, 2, 3, 4),)]
    with pytest.raises(RuntimeError), in_lockstep(model.module, sites, broken, 1) as walk:
        for site in sites:
            walk.advance(site, range(len(inputs)))
    with (
        pytest.raises(ValueError, match="not where the pass stopped"),
        in_lockstep(model.module, sites[:3], inputs, 1) as walk,
    ):
        walk.advance(sites[0], [0])
        walk.advance(sites[2], [0])
    assert threading.active_count() == before
    assert not model.site_module(sites[0])._forward_pre_hooks
