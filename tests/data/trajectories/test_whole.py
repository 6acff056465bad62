"""Molecules made whole: wrapping any molecule into any box and mending it gives it back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlff_cli.data.trajectories.topology_file import bonded_pairs
from mlff_cli.data.trajectories.whole import BondTree
from tests.data.trajectory_cases import N, frames, topology

BOXES = {
    "cubic": np.eye(3) * 9.0,
    "flat": np.diag([6.0, 30.0, 8.0]),
    "triclinic": np.array([[12.0, 0, 0], [5.5, 11.0, 0], [-5.5, 5.0, 9.0]]),
    "dodecahedron": 11.0 * np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, np.sqrt(0.5)]]),
    "skewed": np.array([[12.0, 0, 0], [9.0, 12.0, 0], [-8.0, 9.0, 12.0]]),  # not even reduced
}


def wrap(x: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Every atom into the cell, as programs write it."""
    s = x @ np.linalg.inv(box)
    return (s - np.floor(s)) @ box


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_what_was_wrapped_comes_back(box: np.ndarray, seed: int) -> None:
    """The shape is the old one; the first atom of each molecule stays where it was found."""
    assert (1 / np.linalg.norm(np.linalg.inv(box), axis=0)).min() > 2 * 1.9  # heights, bonds
    rng = np.random.default_rng(seed)
    x = frames(3, seed)[0].astype("float64") + rng.uniform(-40, 40, (3, 1, 3))
    tree = BondTree(N, bonded_pairs(topology()))
    whole = tree.make_whole(wrap(x, box), np.tile(box, (3, 1, 1)))
    np.testing.assert_allclose(whole - whole[:, :1], x - x[:, :1], atol=1e-9)
    np.testing.assert_allclose(whole[:, 0], wrap(x, box)[:, 0], atol=1e-9)


def test_long_chains_and_many_molecules() -> None:
    """A chain longer than the box crosses it many times; molecules do not pull at each other."""
    rng = np.random.default_rng(0)
    n, m = 500, 40
    chain = np.cumsum(rng.normal(size=(2, n, 3)), axis=1)
    waters = rng.uniform(-30, 30, (2, m, 1, 3)) + rng.uniform(-0.6, 0.6, (2, m, 3, 3))
    x = np.concatenate([chain, waters.reshape(2, -1, 3)], axis=1)
    order = rng.permutation(x.shape[1])  # molecules lie in no order
    bonds = [(i, i + 1) for i in range(n - 1)]
    bonds += [(n + 3 * k, n + 3 * k + j) for k in range(m) for j in (1, 2)]
    place = np.argsort(order)
    tree = BondTree(x.shape[1], place[np.array(bonds)])
    assert tree.molecule.max() == m
    box = np.tile(BOXES["triclinic"] * 2, (2, 1, 1))
    whole = tree.make_whole(wrap(x[:, order], box[0]), box)
    root = np.array([np.flatnonzero(tree.molecule == k)[0] for k in tree.molecule])
    np.testing.assert_allclose(
        whole - whole[:, root], x[:, order] - x[:, order][:, root], atol=1e-9
    )


def test_without_a_box_nothing_moves() -> None:
    x = frames(4)[0]
    tree = BondTree(N, bonded_pairs(topology()))
    assert tree.make_whole(x, None) is x
    assert tree.make_whole(x, np.zeros((4, 3, 3))) is x
    assert tree.make_whole(x, np.tile(np.eye(3) * 50, (4, 1, 1))) is x


def test_frames_without_a_box_among_others() -> None:
    x = frames(4)[0].astype("float64")
    boxes = np.stack([np.eye(3) * 7.0, np.zeros((3, 3)), np.eye(3) * 9.0, np.eye(3) * 60.0])
    broken = x.copy()
    for k in (0, 2):
        broken[k] = wrap(x[k], boxes[k])
    kept = broken.copy()
    whole = BondTree(N, bonded_pairs(topology())).make_whole(broken, boxes)
    np.testing.assert_allclose(whole - whole[:, :1], x - x[:, :1], atol=1e-9)
    np.testing.assert_array_equal(whole[[1, 3]], x[[1, 3]])
    np.testing.assert_array_equal(broken, kept)
