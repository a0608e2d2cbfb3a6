import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitvox.compiler.passes.streaming_median import REDUCTIONS, RELATIVE_ERROR, StreamingQuantile


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 9999), st.floats(-30, 30))
def test_median_is_within_the_stated_error_of_torchs(sizes: list[int], seed: int, exponent: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    chunks = [torch.randn(size, generator=generator) * 10**exponent for size in sizes]
    quantile = StreamingQuantile(0.5)
    for chunk in chunks:
        quantile.update(chunk)
    exact = float(torch.cat(chunks).abs().median())
    assert abs(quantile.value() - exact) <= RELATIVE_ERROR * exact + 1e-45


def test_zero_is_exact_and_memory_does_not_grow() -> None:
    quantile = StreamingQuantile(0.5)
    for _ in range(10):
        quantile.update(torch.zeros(3, 5))
        quantile.update(torch.tensor([1.0]))
    assert quantile.value() == 0.0
    assert quantile._counts.nbytes == 512 * 1024


@pytest.mark.parametrize("fraction,name", [(0.9, "q90"), (0.99, "q99")])
def test_quantiles_match_torch(fraction: float, name: str) -> None:
    values = torch.randn(10_001)
    statistic = REDUCTIONS[name]()
    for chunk in values.split(997):
        statistic.update(chunk)
    exact = float(values.abs().quantile(fraction, interpolation="lower"))
    assert statistic.value() == pytest.approx(exact, rel=RELATIVE_ERROR)


def test_moments_and_maxima_match_torch() -> None:
    values = torch.randn(5000) - 3.0
    exact = {
        "mean": values.abs().double().mean(),
        "std": values.double().std(correction=0),
        "max": values.max(),
        "abs-max": values.abs().max(),
    }
    for name, wanted in exact.items():
        statistic = REDUCTIONS[name]()
        for chunk in values.split(123):
            statistic.update(chunk)
        assert statistic.value() == pytest.approx(float(wanted), rel=1e-6)


@pytest.mark.parametrize("name", list(REDUCTIONS))
def test_an_empty_stream_has_no_value(name: str) -> None:
    with pytest.raises(ValueError, match="no values"):
        REDUCTIONS[name]().value()
