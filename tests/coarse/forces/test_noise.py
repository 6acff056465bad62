"""Noise on beads: it belongs to its frame, it is normal, and only a noise map takes it."""

from __future__ import annotations

import numpy as np
import pytest

from mlff_cli.coarse.forces.force_map import GAS_CONSTANT, ForceMap, basic_map
from mlff_cli.coarse.forces.noise import add_noise, frame_noise
from mlff_cli.core.errors import UsageError


def test_noise_belongs_to_its_frame():
    rows = np.array([3, 8, 1 << 40])
    whole = frame_noise(5, 2, rows, 4)
    for t in range(3):
        assert np.array_equal(frame_noise(5, 2, rows[t : t + 1], 4)[0], whole[t])
    for other in (frame_noise(6, 2, rows, 4), frame_noise(5, 3, rows, 4)):
        assert not np.isclose(other, whole).any()
    assert not np.isclose(whole[0], whole[1]).any()


def test_noise_is_normal():
    eps = frame_noise(0, 0, np.arange(4000), 5)
    assert abs(eps.mean()) < 4 / np.sqrt(eps.size)
    assert abs(eps.var() - 1) < 4 * np.sqrt(2 / eps.size)
    for a, b in ((eps[:-1], eps[1:]), (eps[:, :-1], eps[:, 1:])):  # frames, beads
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 4 / np.sqrt(a.size)


def test_it_is_the_formula():
    excess = np.array([[-0.5, 0.25], [0.0, -1.0]])
    found = ForceMap(np.eye(2), np.arange(2), excess, "noise", sigma=0.2, temperature=350.0)
    eps = frame_noise(1, 0, np.arange(3), 2)
    positions, forces = np.ones((3, 2, 3)), np.full((3, 2, 3), 2.0)
    r, f = add_noise(found, positions, forces, eps)
    kick = GAS_CONSTANT * 350.0 / 0.2
    np.testing.assert_allclose(r, 1.0 + 0.2 * eps, rtol=1e-14)
    np.testing.assert_allclose(f[:, 0], 2.0 + kick * (-0.5 * eps[:, 0] + 0.25 * eps[:, 1]))
    np.testing.assert_allclose(f[:, 1], 2.0 - kick * eps[:, 1])


def test_other_maps_have_no_noise():
    found = basic_map(np.eye(2), np.arange(2))
    zero = np.zeros((1, 2, 3))
    with pytest.raises(UsageError, match="basic map has no noise"):
        add_noise(found, zero, zero, zero)
