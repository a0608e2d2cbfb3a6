"""The loops in C++ against their arithmetic in NumPy, and GPTQ without an inverse against GPTQ with one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitvox.compiler.passes import _rounding
from bitvox.compiler.passes.elimination import Elimination, round_gptq
from bitvox.compiler.passes.rows import Rows, clipped_steps, damped

Floats = NDArray[np.float32]


def _codes(values: Floats, tops: Floats) -> Floats:
    return np.clip(np.rint(values), -tops, tops - 1)


def _eliminate(
    factor: Floats, first: int, last: int, weights: Floats, owed: Floats, steps: Floats, tops: Floats
) -> tuple[Floats, Floats]:
    codes, lost = np.zeros_like(weights), np.zeros_like(weights)
    for index in reversed(range(first, last)):
        charged = owed[index].copy()
        for other in range(index + 1, last):
            charged += factor[index, other] * lost[other]
        codes[index] = _codes((weights[index] - charged / factor[index, index]) / steps, tops)
        lost[index] = codes[index] * steps - weights[index]
    return codes, lost


def _descend(
    hessian: Floats, first: int, last: int, slope: Floats, steps: Floats, tops: Floats, codes: Floats
) -> tuple[Floats, Floats]:
    codes, moved = codes.copy(), np.zeros((last - first, codes.shape[1]), np.float32)
    for index in range(first, last):
        downhill = slope[index].copy()
        for other in range(first, index):
            downhill += hessian[index, other] * moved[other - first]
        curvature = np.maximum(hessian[index, index], np.float32(1e-30))
        found = _codes(codes[index] - downhill / curvature / steps, tops)
        moved[index - first] = (found - codes[index]) * steps
        codes[index] = found
    return codes, moved


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 70), st.integers(1, 150), st.data())
def test_the_loops_are_their_definition_bit_for_bit(
    seed: int, groups: int, rows: int, inputs: int, data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, inputs - 1))
    last = data.draw(st.integers(first + 1, inputs))
    draw = np.random.default_rng(seed)

    def normal(*shape: int) -> Floats:
        return draw.standard_normal(shape).astype(np.float32)

    matrix = normal(groups, inputs, inputs) / np.float32(inputs**0.5)
    matrix[:, range(inputs), range(inputs)] = 1 + np.abs(normal(groups, inputs))
    weights, owed = normal(groups, inputs, rows), normal(groups, inputs, rows)
    steps = np.abs(normal(groups, rows)) + np.float32(0.05)
    tops = np.float32(2) ** draw.integers(1, 8, (groups, rows)).astype(np.float32)
    codes, lost = np.zeros_like(weights), np.zeros_like(weights)
    _rounding.eliminate(matrix, first, last, weights, owed, steps, tops, codes, lost)
    swept, moved = codes.copy(), np.zeros((groups, last - first, rows), np.float32)
    _rounding.descend(matrix, first, last, owed, steps, tops, swept, moved)
    for group in range(groups):
        one = matrix[group], first, last
        limits = steps[group], tops[group]
        right = _eliminate(*one, weights[group], owed[group], *limits)
        assert (codes[group] == right[0]).all()
        assert (lost[group] == right[1]).all()
        right = _descend(*one, owed[group], *limits, codes[group])
        assert (swept[group] == right[0]).all()
        assert (moved[group] == right[1]).all()


def test_ties_go_to_even_and_codes_stay_in_their_range() -> None:
    values = torch.tensor([[-9.0, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 9.0]]).T.contiguous()
    codes, lost = torch.empty(1, 8, 1), torch.empty(1, 8, 1)
    limits = torch.ones(1, 1), torch.full((1, 1), 4.0)
    _rounding.eliminate(torch.eye(8)[None], 0, 8, values[None], torch.zeros(1, 8, 1), *limits, codes, lost)
    assert codes.flatten().tolist() == [-4, -2, -2, 0, 0, 2, 2, 3]
    assert torch.equal(lost[0], codes[0] - values)


def _with_inverse(rows: Rows, steps: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
    """GPTQ as its paper writes it, in float64: in falling order of power, by the inverse's factor."""
    order = hessian.diagonal().argsort(descending=True)
    inverse = torch.linalg.inv(hessian[order][:, order].double())
    factor = torch.linalg.cholesky(inverse, upper=True)
    left, codes = rows.weights[:, order].double(), torch.empty_like(rows.weights)
    for index in range(len(order)):
        code = (left[:, index] / steps).round().clamp(-rows.top[:, 0], rows.top[:, 0] - 1)
        error = (left[:, index] - code * steps) / factor[index, index]
        left[:, index:] -= error[:, None] * factor[index, index:]
        codes[:, index] = code
    return codes[:, order.argsort()]


@pytest.mark.parametrize("inputs", [5, 128, 300])
def test_it_is_gptq_without_the_inverse(inputs: int) -> None:
    generator = torch.Generator().manual_seed(inputs)
    mixing = torch.randn(inputs, inputs, generator=generator) * torch.rand(inputs, generator=generator)
    hessian = mixing @ mixing.T
    rows = Rows(torch.randn(40, inputs, generator=generator), torch.tensor([2.0, 3, 4, 8] * 10))
    steps = clipped_steps(rows, hessian)
    ours, right = (
        round_gptq(rows, steps, Elimination.of(hessian)),
        _with_inverse(rows, steps, damped(hessian)),
    )
    # A value that lies between two codes in float64 may lie on either side in float32, and moves those after.
    assert (ours == right).all(dim=1).float().mean() > 0.9


@pytest.mark.parametrize("inputs", [30, 384, 900])
def test_the_factor_gives_the_matrix_back_and_dividing_undoes_a_product(inputs: int) -> None:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(2, inputs, inputs + 40, generator=generator)
    hessian = mixing @ mixing.mT / inputs
    elimination = Elimination.of(hessian)
    factor, back = elimination.factor.triu(), elimination.order.argsort(dim=-1)
    found = torch.stack([(one.mT @ one)[to][:, to] for one, to in zip(factor, back, strict=True)])
    assert torch.allclose(found, damped(hessian), atol=1e-4)
    values = torch.randn(2, 7, inputs, generator=generator)
    assert torch.allclose(elimination.divide(values @ damped(hessian)), values, atol=1e-3)
