"""Normal equations on compositions: equal to the dense solution, null space named."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mlff_cli.data.compositions import Block
from mlff_cli.data.least_squares import NormalEquations, Solution, solve


def solve_dense(elements: list[int], x: np.ndarray, y: np.ndarray) -> Solution:
    """Solve in two blocks; x (n, K) compositions."""
    equations = NormalEquations()
    for part in (slice(None, len(y) // 2), slice(len(y) // 2, None)):
        counts = np.ascontiguousarray(x[part].T.astype("float64"))
        block = Block(np.array(elements), counts, y[part])
        equations.add(block, y[part])
    return solve(equations)


@given(x=arrays("int64", (12, 4), elements=st.integers(0, 3)), seed=st.integers(0, 9))
def test_equals_the_minimum_norm_solution_of_lstsq(x: np.ndarray, seed: int) -> None:
    y = np.random.default_rng(seed).normal(size=12)
    elements = [1, 6, 8, 118]
    found = solve_dense(elements, x, y)
    expected, _, rank, _ = np.linalg.lstsq(x.astype("float64"), y, rcond=None)
    np.testing.assert_allclose(found.values[elements], expected, atol=1e-8)
    assert found.rank == rank
    ambiguous = {z for a in found.ambiguities for z in a.elements}
    occurring = {z for z, atoms in zip(elements, x.sum(axis=0), strict=True) if atoms}
    assert set(np.flatnonzero(np.isfinite(found.spread))) == occurring - ambiguous
    assert sum(a.dimension for a in found.ambiguities) == len(occurring) - rank


def test_spread_is_the_root_of_the_inverse_diagonal() -> None:
    x = np.random.default_rng(0).integers(0, 5, size=(40, 3))
    found = solve_dense([1, 6, 7], x, np.zeros(40))
    inverse = np.linalg.inv((x.T @ x).astype("float64"))
    np.testing.assert_allclose(found.spread[[1, 6, 7]], np.sqrt(np.diag(inverse)), rtol=1e-10)


def test_a_constant_ratio_is_an_ambiguity_with_its_direction() -> None:
    n = np.arange(1, 9)
    x = np.stack([4 * n, n, n % 3], axis=1)  # H:C = 4:1 always, O by itself
    found = solve_dense([1, 6, 8], x, -10.0 * n)
    (ambiguity,) = found.ambiguities
    assert ambiguity.elements == (1, 6)
    assert ambiguity.dimension == 1
    assert ambiguity.direction == pytest.approx((1.0, -4.0))
    np.testing.assert_allclose(x[:, :2] @ np.array(ambiguity.direction), 0, atol=1e-9)


def test_separate_ambiguities_stay_separate() -> None:
    """Water and HCN-like units: {H, O} always 2:1, {N, F} always 1:1, {C, S, P} span one line."""
    a, b, c = np.random.default_rng(0).integers(1, 6, size=(3, 30))
    x = np.stack([2 * a, c, b, a, b, c, c], axis=1)
    found = solve_dense([1, 6, 7, 8, 9, 15, 16], x, np.zeros(30))
    groups = {g.elements: g.dimension for g in found.ambiguities}
    assert groups == {(1, 8): 1, (7, 9): 1, (6, 15, 16): 2}


def test_one_molecule_in_a_million_breaks_a_tie() -> None:
    common, rare = np.array([4.0, 1.0]), np.array([2.0, 0.0])
    equations = NormalEquations()
    equations.n = 1_000_001
    for z in (1, 6):
        equations.molecules[z] = equations.n
    a = 1e6 * np.outer(common, common) + np.outer(rare, rare)
    equations.a[np.ix_([1, 6], [1, 6])] = a
    equations.b[[1, 6]] = a @ np.array([-13.6, -1035.0])
    found = solve(equations)
    assert found.rank == 2
    np.testing.assert_allclose(found.values[[1, 6]], [-13.6, -1035.0], rtol=1e-5)
