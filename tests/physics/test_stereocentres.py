"""Hands: kept by rotations, changed by mirrors and by neighbours that change places."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from mlff_cli.physics.stereocentres import crowded_atoms, hands

BONDS = np.array([[4, 0], [0, 1], [2, 0], [0, 3], [3, 5]])
CORNERS = np.array([[0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1], [-2, 2, -1.0]])


def test_only_atoms_with_four_neighbours_have_a_hand() -> None:
    np.testing.assert_array_equal(crowded_atoms(BONDS), [[1, 2, 3, 4]])
    assert crowded_atoms(BONDS[1:]).shape == (0, 4)
    assert hands(CORNERS[None], crowded_atoms(BONDS[1:])).shape == (1, 0)


def test_rotations_keep_hands_and_mirrors_change_them() -> None:
    near = crowded_atoms(BONDS)
    rng = np.random.default_rng(0)
    x = CORNERS + 0.1 * rng.standard_normal((20, 6, 3))
    before = hands(x, near)
    turned = np.einsum("bij,bnj->bni", Rotation.random(20, random_state=rng).as_matrix(), x) + 3.0
    np.testing.assert_array_equal(hands(turned, near), before)
    np.testing.assert_array_equal(hands(x * [1, 1, -1], near), -before)
    np.testing.assert_array_equal(hands(x[:, [0, 2, 1, 3, 4, 5]], near), -before)
    assert set(before.ravel()) == {before[0, 0]} <= {-1.0, 1.0}


def test_what_is_not_finite_has_no_hand() -> None:
    x = np.stack([CORNERS, CORNERS])
    x[1, 2, 0] = np.inf
    assert np.isnan(hands(x, crowded_atoms(BONDS))[1]).all()
