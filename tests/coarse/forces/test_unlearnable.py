"""The bound on unlearnable variance, on oscillators whose variance at given beads is known.

Their mean force is linear, -P R, so that the bound exceeds the variance by what is known too:
half the mean square of P (R_i - Q R_j).
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mlff_cli.coarse.forces.force_map import basic_map
from mlff_cli.coarse.forces.unlearnable import (
    MAX_FRAMES,
    Unlearnable,
    _rotations,
    sample_rows,
    unlearnable_variance,
)
from mlff_cli.core.errors import DataError
from tests.coarse.harmonic import Oscillators, chain


def data(tether: float, n_beads: int = 3, n_frames: int = MAX_FRAMES, seed: int = 0):
    """Positions and forces of beads, the system, and the exact unlearnable variance."""
    system = chain(n_beads=n_beads, tether=tether)
    x, f = system.sample(n_frames, seed)
    found = basic_map(system.mapping, system.groups)
    exact = float(np.trace(system.scatter(found.matrix))) / n_beads
    return system, system.mapping @ x, found.apply(f), exact


def excess(system: Oscillators, r: np.ndarray, found: Unlearnable, align: bool) -> float:
    """What the mean force's difference adds to the bound."""
    if align:
        r = r - r.mean(axis=1, keepdims=True)
    i, j = found.pairs.T
    q = _rotations(r[i], r[j]) if align else np.eye(3)
    away = np.einsum("ab,tbc->tac", system.pmf_hessian(), r[i] - r[j] @ q)
    return float(0.5 * (away**2).mean())


@pytest.mark.parametrize(("align", "tether"), [(False, 3.0), (True, 0.0)])
@pytest.mark.parametrize("n_beads", [2, 3])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_is_the_exact_variance_and_what_the_pairs_add(align, tether, n_beads, seed):
    system, r, f, exact = data(tether, n_beads, seed=seed)
    found = unlearnable_variance(r, f, align=align)
    assert found.from_pairs - excess(system, r, found, align) == pytest.approx(
        exact, abs=4 * found.error
    )
    assert found.error < 0.05 * exact
    assert found.bound > exact - 3 * found.error


def test_it_is_exact_where_frames_are_dense():
    system, r, f, exact = data(3.0, n_beads=1)
    found = unlearnable_variance(r, f, align=False)
    assert excess(system, r, found, False) < 0.01 * exact
    assert found.bound == pytest.approx(exact, abs=4 * found.error)
    assert found.bound < 0.8 * found.total


def test_more_frames_bring_nearer_pairs_and_a_smaller_bound():
    few, many = (data(3.0, n_frames=n) for n in (60, MAX_FRAMES))
    a, b = (unlearnable_variance(r, f, align=False) for _, r, f, _ in (few, many))
    assert b.distance < a.distance
    assert many[3] < b.bound < a.bound


def test_forces_without_noise_leave_what_the_pairs_add():
    system, r, _, _ = data(3.0)
    f = -np.einsum("ab,tbc->tac", system.pmf_hessian(), r)
    found = unlearnable_variance(r, f, align=False)
    assert found.from_pairs == pytest.approx(excess(system, r, found, False), rel=1e-9)


def test_forces_that_know_nothing_of_the_beads():
    _, r, _, _ = data(0.0)
    f = np.random.default_rng(1).normal(size=r.shape)
    found = unlearnable_variance(r, f)
    assert found.bound == pytest.approx(1.0, abs=4 * found.error)
    assert found.bound <= found.total


def test_it_does_not_see_how_frames_are_turned_and_placed():
    _, r, f, _ = data(0.0, n_frames=300)
    turn = Rotation.random(300, random_state=2).as_matrix()
    shift = 10 * np.random.default_rng(3).normal(size=(300, 1, 3))
    found = unlearnable_variance(r, f)
    again = unlearnable_variance(r @ turn + shift, f @ turn)
    assert np.array_equal(again.pairs, found.pairs)
    assert again.bound == pytest.approx(found.bound, rel=1e-9)
    assert again.distance == pytest.approx(found.distance, rel=1e-9)


def test_a_copy_that_is_turned_is_the_nearest():
    _, r, f, _ = data(0.0, n_frames=50)
    turn = Rotation.from_euler("xyz", [1.0, -2.0, 0.5]).as_matrix()
    found = unlearnable_variance(np.concatenate([r, r @ turn]), np.concatenate([f, f @ turn]))
    assert found.pairs[:50, 1].tolist() == list(range(50, 100))
    assert found.bound < 1e-20
    assert found.distance < 1e-6


def test_frames_close_in_time_are_no_pair():
    """Each frame twice in a row, noise and all: without a gap the copy would be its pair."""
    _, r, f, _ = data(3.0, n_beads=1, n_frames=1000)
    r, f, rows = np.repeat(r, 2, axis=0), np.repeat(f, 2, axis=0), np.arange(2000)
    assert unlearnable_variance(r, f, rows=rows, gap=0, align=False).bound == 0.0
    for gap, least in ((2, 2), (None, 20), (50, 50)):
        found = unlearnable_variance(r, f, rows=rows, gap=gap, align=False)
        assert np.abs(np.diff(rows[found.pairs])).min() >= least
        assert found.bound > 0.1 * found.total


def test_trajectories_have_their_own_time():
    _, r, f, _ = data(3.0, n_beads=1, n_frames=40)
    rows, source = np.tile(np.arange(20), 2), np.repeat([0, 1], 20)
    found = unlearnable_variance(r, f, rows=rows, source=source, gap=100, align=False)
    assert (source[found.pairs[:, 0]] != source[found.pairs[:, 1]]).all()
    alone = unlearnable_variance(r, f, rows=np.arange(40), gap=100, align=False)
    assert (alone.from_pairs, alone.error, alone.distance) == (None, None, None)
    assert alone.bound == alone.total == pytest.approx((f**2).mean())


def test_one_bead_that_nothing_holds_has_no_force_to_learn():
    _, r, f, _ = data(0.0, n_beads=1, n_frames=20)
    found = unlearnable_variance(r, f)
    assert found.bound == found.total
    assert found.pairs.shape == (0, 2)


def test_many_beads_take_the_stiffest_distances(monkeypatch):
    _, r, f, _ = data(0.0, n_frames=200)
    expected = unlearnable_variance(r, f)
    monkeypatch.setattr("mlff_cli.coarse.forces.unlearnable._BLOCK", 1)
    assert np.array_equal(unlearnable_variance(r, f).pairs, expected.pairs)
    monkeypatch.setattr("mlff_cli.coarse.forces.unlearnable.MAX_FEATURES", 1)
    assert not np.array_equal(unlearnable_variance(r, f).pairs, expected.pairs)


def test_a_sample_of_frames_is_drawn_by_seed():
    assert np.array_equal(sample_rows(10, 0), np.arange(10))
    rows = sample_rows(50_000, 1)
    assert len(np.unique(rows)) == MAX_FRAMES
    assert (np.diff(rows) > 0).all()
    assert np.array_equal(rows, sample_rows(50_000, 1))
    assert not np.array_equal(rows, sample_rows(50_000, 2))


@pytest.mark.parametrize("shape", [(MAX_FRAMES + 1, 2, 3), (0, 2, 3)])
def test_frames_must_be_a_sample(shape):
    with pytest.raises(DataError, match=f"1 to {MAX_FRAMES} frames"):
        unlearnable_variance(np.zeros(shape), np.zeros(shape))
