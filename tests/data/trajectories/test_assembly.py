"""Chains of a complex in a periodic box: distances are those of the whole complex."""

from __future__ import annotations

import numpy as np
import pytest

from mlff_cli.data.trajectories.assembly import assembled

BOX = np.array([[20.0, 0.0, 0.0], [6.0, 18.0, 0.0], [-4.0, 5.0, 22.0]])
MOLECULE = np.array([0, 0, 0, 5, 5, 2])


def complex_of(n_frames: int, seed: int = 0) -> np.ndarray:
    """Three small molecules within some angstrom of one another."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-2.5, 2.5, size=(n_frames, len(MOLECULE), 3))


def scattered(x: np.ndarray, seed: int = 1) -> np.ndarray:
    """Every molecule moved by whole edges of the box."""
    rng = np.random.default_rng(seed)
    images = rng.integers(-3, 4, size=(len(x), MOLECULE.max() + 1, 3)) @ BOX
    return x + images[:, MOLECULE]


def between(x: np.ndarray) -> np.ndarray:
    return np.linalg.norm(x[:, :, None] - x[:, None], axis=-1)


def test_a_scattered_complex_is_brought_together() -> None:
    x = complex_of(30)
    box = np.tile(BOX, (30, 1, 1))
    found = assembled(scattered(x), box, MOLECULE)
    np.testing.assert_allclose(between(found), between(x), atol=1e-10)
    np.testing.assert_array_equal(found[:, :3], scattered(x)[:, :3])  # the first stays


def test_frames_without_a_box_stay() -> None:
    x = scattered(complex_of(4))
    assert assembled(x, None, MOLECULE) is x
    assert assembled(x, np.tile(BOX, (4, 1, 1)), np.zeros(6)) is x
    box = np.tile(BOX, (4, 1, 1))
    box[1] = 0
    found = assembled(x, box, MOLECULE)
    np.testing.assert_array_equal(found[1], x[1])
    assert assembled(x, np.zeros((4, 3, 3)), MOLECULE) is x


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_frames_do_not_depend_on_one_another(dtype: str) -> None:
    x = scattered(complex_of(5)).astype(dtype)
    box = np.tile(BOX, (5, 1, 1))
    together = assembled(x, box, MOLECULE)
    alone = np.concatenate([assembled(x[[t]], box[[t]], MOLECULE) for t in range(5)])
    assert together.dtype == dtype
    np.testing.assert_array_equal(together, alone)
