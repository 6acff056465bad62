"""The Gram matrix: its definition, and that it does not matter how frames come in."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlff_cli.coarse.forces import gram as module
from mlff_cli.coarse.forces.gram import Gram, reduce_groups
from mlff_cli.core.errors import DataError

GROUPS = np.array([0, 1, 1, 2, 0, 3])


def forces(n_frames: int = 7, dtype: str = "float64") -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n_frames, 6, 3)).astype(dtype)


def brute(f: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The definition, frame by frame and component by component."""
    c = np.eye(groups.max() + 1)[groups]
    rows = [c.T @ f[t, :, k].astype("float64") for t in range(len(f)) for k in range(3)]
    return sum(np.outer(y, y) for y in rows) / len(rows)


@pytest.mark.parametrize("groups", [GROUPS, np.arange(6), np.array([3, 0, 5, 1, 2, 4])])
def test_it_is_the_mean_outer_product_of_group_forces(groups):
    found = Gram(groups.max() + 1).add(forces(), groups).matrix
    np.testing.assert_allclose(found, brute(forces(), groups), rtol=1e-13, atol=1e-14)
    assert np.array_equal(found, found.T)


def test_columns_are_components_of_frames():
    y = reduce_groups(forces(), GROUPS)
    assert y.shape == (4, 21)
    np.testing.assert_allclose(y[1, 3 * 2 + 1], forces()[2, [1, 2], 1].sum(), rtol=1e-14)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.randoms())
def test_pieces_and_their_order_do_not_matter(sizes, random):
    f = forces(sum(sizes))
    pieces = np.split(f, np.cumsum(sizes)[:-1])
    random.shuffle(pieces)
    parts = [Gram(4).add(piece, GROUPS) for piece in pieces]
    merged = Gram.total(parts, 4)
    assert merged.n_frames == len(f)
    np.testing.assert_allclose(merged.matrix, brute(f, GROUPS), rtol=1e-13, atol=1e-14)


def test_blocks_inside_do_not_matter(monkeypatch):
    whole = Gram(4).add(forces(50), GROUPS).matrix
    monkeypatch.setattr(module, "BLOCK_BYTES", 1)
    monkeypatch.setattr(module, "BLOCK_FRAMES", 3)
    np.testing.assert_allclose(Gram(4).add(forces(50), GROUPS).matrix, whole, rtol=1e-13)


def test_single_precision_forces_are_summed_in_double():
    f = np.full((4000, 6, 3), 0.1, dtype="float32")
    exact = float(np.float32(0.1)) ** 2
    found = Gram(6).add(f, np.arange(6)).matrix
    np.testing.assert_allclose(found, exact, rtol=1e-13)  # single precision ends at 1e-7


def test_a_product_from_elsewhere_counts_as_frames():
    y = reduce_groups(forces(), GROUPS)
    elsewhere = Gram(4).add_product(y @ y.T, 7)
    np.testing.assert_allclose(elsewhere.matrix, brute(forces(), GROUPS), rtol=1e-13, atol=1e-14)


def test_merging_leaves_the_other_alone():
    a, b = Gram(4).add(forces(3), GROUPS), Gram(4).add(forces(5), GROUPS)
    before = b.matrix
    a.merge(b)
    assert (a.n_frames, b.n_frames) == (8, 5)
    assert np.array_equal(b.matrix, before)


def test_no_frames():
    with pytest.raises(DataError, match="needs frames with forces, found none"):
        _ = Gram(4).add(forces(0), GROUPS).matrix


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_force_that_is_not_finite_is_named(value):
    f = forces()
    f[5, 2, 1] = value
    with pytest.raises(DataError, match="on atom 2 in frame 5"):
        Gram(4).add(f, GROUPS)


def test_atoms_must_agree():
    with pytest.raises(DataError, match=r"\(frames, 6, 3\).*found \(7, 5, 3\)"):
        Gram(4).add(forces()[:, :5], GROUPS)


def test_a_matrix_that_was_handed_over_is_the_same_and_half_as_large() -> None:
    rng = np.random.default_rng(0)
    groups = np.arange(100)
    forces = rng.normal(size=(20, 100, 3))
    gram = Gram(100).add(forces, groups)
    sent = pickle.dumps(gram)
    assert len(sent) < 8 * 100 * 101 / 2 + 1000
    found = pickle.loads(sent)
    np.testing.assert_array_equal(found.matrix, gram.matrix)
    np.testing.assert_array_equal(found.add(forces, groups).matrix, gram.add(forces, groups).matrix)
