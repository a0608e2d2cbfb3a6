"""Windows over long clips: every frame once, in order, with context on both sides of a cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bitvox.exporters.executorch.lengths import even_windows, frames, method_name, method_rows, windows


@given(
    per_frame=st.sampled_from([80, 320]),
    minimum=st.integers(10, 700),
    in_window=st.integers(1, 60),
    spare=st.integers(0, 79),
    beyond=st.integers(1, 30_000),
    margin=st.integers(0, 6_000),
)
def test_windows_keep_every_frame_once(
    per_frame: int, minimum: int, in_window: int, spare: int, beyond: int, margin: int
) -> None:
    longest = minimum + (in_window - 1) * per_frame + spare
    samples = longest + beyond
    total = frames(samples, minimum, per_frame)
    kept = []
    for window in windows(samples, longest, margin, minimum, per_frame):
        assert 0 <= window.start < window.stop <= samples
        assert window.stop - window.start <= longest
        inside = frames(window.stop - window.start, minimum, per_frame)
        assert 0 <= window.first < window.last <= inside
        first = window.start // per_frame
        kept += range(first + window.first, first + window.last)
        context = min(-(-margin // per_frame), (in_window - 1) // 2)
        assert window.start == 0 or window.first >= context
        assert first + inside >= total or inside - window.last >= context
    assert kept == list(range(total))


@given(
    per_frame=st.sampled_from([80, 320]),
    minimum=st.integers(10, 700),
    in_window=st.integers(1, 60),
    spare=st.integers(0, 79),
    beyond=st.integers(1, 30_000),
)
def test_even_windows_hold_every_frame_once_and_are_of_one_size(
    per_frame: int, minimum: int, in_window: int, spare: int, beyond: int
) -> None:
    longest = minimum + (in_window - 1) * per_frame + spare
    samples = longest + beyond
    held = []
    sizes = set()
    for window in even_windows(samples, longest, minimum, per_frame):
        assert 0 <= window.start < window.stop <= samples and window.stop - window.start <= longest
        inside = frames(window.stop - window.start, minimum, per_frame)
        assert (window.first, window.last) == (0, inside)
        sizes.add(inside)
        held += range(window.start // per_frame, window.start // per_frame + inside)
    assert held == list(range(frames(samples, minimum, per_frame)))
    assert max(sizes) - min(sizes) <= 1


def test_a_method_says_its_length() -> None:
    assert method_rows(method_name(64_000)) == 64_000
    assert method_rows("forward") is None
    assert method_rows("sampling_rate") is None
