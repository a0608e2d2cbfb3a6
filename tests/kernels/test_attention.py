"""Attention in float on every instruction set of this CPU, against the NumPy specification."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bitvox.runtime_kernels import attention, available_isas, reference

RNG = np.random.default_rng(3)


def normal(*shape: int) -> NDArray[np.float32]:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.fixture(params=available_isas())
def every_isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITVOX_ISA", request.param)


@pytest.mark.usefixtures("every_isa")
@pytest.mark.parametrize(("queries", "keys", "width"), [(1, 1, 1), (1, 300, 64), (50, 50, 48), (97, 33, 20)])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_its_specification(queries: int, keys: int, width: int, masked: bool) -> None:
    q, k, v = normal(2, queries, 3, width), normal(2, keys, 3, width), normal(2, keys, 3, width)
    mask = normal(queries, keys) if masked else None
    y = attention(q, k, v, 0.2, mask, num_threads=2)
    np.testing.assert_allclose(y, reference.attention(q, k, v, 0.2, mask), rtol=2e-5, atol=2e-6)


@pytest.mark.usefixtures("every_isa")
def test_scores_of_any_size_give_weights_of_sum_one() -> None:
    q, k = 40 * normal(1, 20, 1, 64), 40 * normal(1, 70, 1, 64)
    y = attention(q, k, np.ones_like(k), 1.0)
    np.testing.assert_allclose(y, 1.0, rtol=1e-5)
    expected = reference.attention(q, k, k, 1.0)
    np.testing.assert_allclose(attention(q, k, k, 1.0), expected, rtol=1e-3, atol=1e-2)


@pytest.mark.usefixtures("every_isa")
def test_what_a_mask_forbids_has_no_weight_and_a_bad_query_spoils_no_other() -> None:
    q, k, v = normal(1, 9, 2, 16), normal(1, 70, 2, 16), normal(1, 70, 2, 16)
    mask = np.where(np.arange(70) < 30, 0.0, -np.inf).astype(np.float32)
    y = attention(q, k, v, 0.25, mask)
    np.testing.assert_allclose(
        y, attention(q, k[:, :30].copy(), v[:, :30].copy(), 0.25), rtol=1e-5, atol=1e-6
    )
    q[0, 4] = np.nan
    spoilt = attention(q, k, v, 0.25, mask)
    assert np.isnan(spoilt[0, 4]).all()
    np.testing.assert_array_equal(np.delete(spoilt, 4, axis=1), np.delete(y, 4, axis=1))
    everything = attention(y, k, v, 0.25, np.full(70, -np.inf, np.float32))
    assert np.isnan(everything).all()


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="do not match"):
        attention(normal(1, 2, 2, 8), normal(1, 3, 2, 8), normal(1, 4, 2, 8), 1.0)
    with pytest.raises(ValueError, match="unknown value"):
        attention(normal(1, 2, 2, 8), normal(1, 3, 2, 8), normal(1, 3, 2, 8), 0.0)
