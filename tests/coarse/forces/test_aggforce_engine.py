"""The adapter to aggforce: the same problem, whether or not the package is there to solve it."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

from mlff_cli.coarse.forces import aggforce_engine
from mlff_cli.coarse.forces.aggforce_engine import INSTALL, aggforce_map, require_aggforce
from mlff_cli.core.errors import MissingDependencyError

GROUPS = np.array([0, 0, 1, 2, 3, 3, 3, 4, 5, 6])
N_ATOMS, N_GROUPS, N_FRAMES = len(GROUPS), 7, 40
MAPPING = np.zeros((2, N_ATOMS))
MAPPING[0, 0] = MAPPING[1, 7] = 1.0
C = np.eye(N_GROUPS)[GROUPS]

needs_aggforce = pytest.mark.skipif(
    importlib.util.find_spec("aggforce") is None, reason=f"aggforce is absent: {INSTALL}"
)


def trajectory(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Forces (T, N, 3) and their second moments over groups."""
    rng = np.random.default_rng(seed)
    forces = rng.normal(size=(N_FRAMES, N_ATOMS, 3)) @ np.diag([3.0, 2.0, 1.0])
    X = forces.transpose(0, 2, 1).reshape(-1, N_ATOMS)
    return forces, (X @ C).T @ (X @ C) / (3 * N_FRAMES)


def test_the_equivalent_forces_have_the_second_moments_of_the_trajectory() -> None:
    _, moments = trajectory()
    forces = aggforce_engine._equivalent_forces(GROUPS, moments * 3 * N_FRAMES)
    assert forces.shape == (3, N_ATOMS, 3)
    X = forces.transpose(0, 2, 1).reshape(-1, N_ATOMS) @ C
    np.testing.assert_allclose(X.T @ X, moments * 3 * N_FRAMES, rtol=1e-12, atol=1e-9)


def test_a_semidefinite_moment_gives_finite_forces() -> None:
    moments = np.zeros((N_GROUPS, N_GROUPS))
    moments[0, 0] = 1.0
    assert np.isfinite(aggforce_engine._equivalent_forces(GROUPS, moments)).all()


def test_constraints_join_every_atom_of_a_group_and_no_others() -> None:
    pairs = aggforce_engine._constraints(GROUPS)
    assert pairs == {frozenset(p) for p in [(0, 1), (4, 5), (4, 6)]}


def test_an_absent_package_is_named_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "aggforce", None)  # Python's way to say: not importable
    with pytest.raises(MissingDependencyError) as caught:
        require_aggforce()
    assert caught.value.exit_code == 4
    assert caught.value.remedy == INSTALL


@needs_aggforce
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_its_map_of_the_moments_is_its_map_of_the_forces(l2: float) -> None:
    """And the closed form's: V = (A G^-1 A^T)^-1 A G^-1."""
    import aggforce

    forces, moments = trajectory()
    W = aggforce_map(MAPPING, GROUPS, moments, N_FRAMES, l2=l2)
    direct = aggforce.project_forces(
        coords=forces,
        forces=forces,
        coord_map=aggforce.LinearMap(MAPPING),
        constrained_inds=aggforce_engine._constraints(GROUPS),
        l2_regularization=3 * N_FRAMES * l2,
    )
    np.testing.assert_allclose(W, direct["tmap"].force_map.standard_matrix, atol=1e-6)
    A, G = MAPPING @ C, moments + l2 * C.T @ C
    G_inverse_A = np.linalg.solve(G, A.T)
    V = np.linalg.solve(A @ G_inverse_A, G_inverse_A.T)
    np.testing.assert_allclose(W, V @ C.T, atol=1e-6)


@needs_aggforce
def test_its_basic_map_takes_whole_groups() -> None:
    W = aggforce_map(MAPPING, GROUPS, trajectory()[1], N_FRAMES, method="basic")
    expected = np.zeros_like(MAPPING)
    expected[0, [0, 1]] = expected[1, 7] = 1.0
    np.testing.assert_array_equal(W, expected)
