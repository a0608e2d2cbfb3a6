import pytest
import torch

from bitvox.compiler.frontend.model import ConvGeometry, Site
from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.input_moments import DriftMoments, InputMoments, gather_moments
from bitvox.compiler.passes.input_moments import frames as read
from bitvox.compiler.passes.observers import columns
from bitvox.compiler.passes.products import add_up
from bitvox.errors import InputError
from support import PackedCosts, noise_clips, tiny_context, tiny_model

LINEAR = Site("l", "linear", (5, 12), "linear", "l", True)
STRIDED = Site("c", "conv1d", (6, 4, 3), "conv", "c", False, ConvGeometry(2, 1, 1, 1))
GROUPED = Site("p", "conv1d", (8, 2, 5), "positional_conv", "p", True, ConvGeometry(1, 2, 1, 4))


def _by_definition(site: Site, clips: list[torch.Tensor], frames: list[int]) -> torch.Tensor:
    seen = torch.cat([columns(site, x, torch.arange(n)) for x, n in zip(clips, frames, strict=True)])
    return torch.einsum("fgi,fgj->gij", seen, seen) / seen.shape[0]


def test_a_linear_and_a_strided_convolution_sum_over_every_frame_of_every_clip() -> None:
    torch.manual_seed(0)
    clips, frames = [torch.randn(1, 7, 12), torch.randn(1, 20, 12)], [7, 20]
    moments = InputMoments(LINEAR)
    for seen in read(LINEAR, clips, 2, 1):
        add_up(moments.parts(seen), 1)
    wanted = _by_definition(LINEAR, clips, frames)
    assert torch.allclose(moments.hessian(0), wanted[0], atol=1e-5)

    waves = [torch.randn(1, 4, 11), torch.randn(1, 4, 30)]
    moments = InputMoments(STRIDED)
    for seen in read(STRIDED, waves, 2, 2):
        add_up(moments.parts(seen), 2)
    wanted = _by_definition(STRIDED, waves, [6, 15])
    assert torch.allclose(moments.hessian(0), wanted[0], atol=1e-5)


def test_a_sliding_convolution_keeps_lags_and_misses_only_the_ends_of_a_clip() -> None:
    torch.manual_seed(1)
    wave = torch.nn.functional.conv1d(torch.randn(8, 1, 3004), torch.ones(1, 1, 5))[:, 0][None] + 0.3
    moments = InputMoments(GROUPED)
    add_up(moments.parts(read(GROUPED, [wave], 1, 1)[0]), 2)
    wanted = _by_definition(GROUPED, [wave], [3000])
    for group in range(4):
        found = moments.hessian(group)
        assert torch.equal(found, found.T)
        assert (found - wanted[group]).norm() < 0.01 * wanted[group].norm()
    # Independent inputs would hide a transposed lag; these are not.
    assert (wanted[0] - wanted[0].diag().diag()).norm() > wanted[0].diag().norm()


@pytest.mark.parametrize(
    ("site", "shape", "frames"),
    [(LINEAR, (1, 50, 12), 50), (STRIDED, (1, 4, 81), 41), (GROUPED, (1, 8, 20000), 20000)],
)
def test_drift_is_the_mean_product_of_what_was_lost_and_what_is_read(
    site: Site, shape: tuple[int, ...], frames: int
) -> None:
    torch.manual_seed(2)
    values = torch.randn(shape)
    lost = 0.3 * values.roll(1, dims=-1) + 0.1 * torch.randn(shape)
    drift = DriftMoments(site)
    add_up(drift.parts(*read(site, [lost, values], 1, 2)), 2)
    ours, theirs = (columns(site, one, torch.arange(frames)) for one in (lost, values))
    wanted = torch.einsum("fgi,fgj->gij", ours, theirs) / frames
    for group in range(wanted.shape[0]):
        found = drift.matrix(group)
        assert (found - wanted[group]).norm() < 0.01 * wanted[group].norm()
        assert (found.T - wanted[group]).norm() > 0.1 * wanted[group].norm()


def test_the_model_gives_every_group_what_it_reads() -> None:
    context = tiny_context()
    groups = list(context.model.share_groups())
    found = gather_moments(context, groups, "measure")
    assert list(found) == [group[0].share_group for group in groups]
    head = context.model.site("lm_head")
    seen: list[torch.Tensor] = []
    handle = context.model.site_module(head).register_forward_hook(lambda _m, x, _y: seen.append(x[0][0]))
    for clip in context.clips:
        context.model.logits(clip)
    handle.remove()
    rows = torch.cat(seen)
    assert torch.allclose(found["lm_head"].hessian(0), rows.T @ rows / len(rows), rtol=1e-4, atol=1e-5)


def test_the_model_runs_no_further_than_the_last_group() -> None:
    context = tiny_context()
    groups = list(context.model.share_groups())
    ran: list[str] = []
    head = context.model.site_module(context.model.site("lm_head"))
    handle = head.register_forward_hook(lambda *_: ran.append("head"))
    gather_moments(context, groups[:3], "measure")
    handle.remove()
    assert ran == []


@pytest.mark.parametrize("clips,message", [((), "no clip"), ("nan", "not finite")])
def test_what_cannot_be_measured_is_said_in_one_line(clips, message: str) -> None:
    if clips == "nan":
        clips = (noise_clips()[0] * float("nan"),)
    context = PassContext(tiny_model(), clips, PackedCosts())
    with pytest.raises(InputError, match=message):
        gather_moments(context, list(context.model.share_groups()), "measure")
