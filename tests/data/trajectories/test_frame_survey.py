"""What stands out in frames is found where it was put, whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mlff_cli.data.trajectories.frame_survey import (
    BondLimits,
    Bonds,
    ForceStatistics,
    Overlaps,
    fingerprints,
    repeats,
    sampled,
    unbonded_pairs,
)

T, N = 40, 6
LIMITS = BondLimits(stiff=1.5, soft=2.0, jump=3.0, contact=1.0)
CHAIN = np.stack([np.arange(N - 1), np.arange(1, N)], axis=1)


def straight(seed: int = 0) -> np.ndarray:
    """A chain along x with bonds of 3.8 A, jittered a little."""
    rng = np.random.default_rng(seed)
    R = np.zeros((T, N, 3))
    R[..., 0] = 3.8 * np.arange(N)
    return R + 0.05 * rng.normal(size=R.shape)


@pytest.mark.parametrize("step", [1, 7, T])
def test_force_statistics_are_those_of_all_frames_at_once(step: int) -> None:
    rng = np.random.default_rng(1)
    F = rng.normal(size=(T, N, 3)).astype("float32")
    real = rng.random((T, N)) < 0.8
    found = ForceStatistics()
    for start in range(0, T, step):
        found.add(F[start : start + step], real[start : start + step])
    size = np.linalg.norm(F.astype("float64"), axis=-1)
    assert_allclose(found.mean, size[real].mean(), rtol=1e-12)
    assert_allclose(found.rms_component, np.sqrt((F[real].astype("float64") ** 2).mean()))
    assert_allclose(np.concatenate(found.largest), np.where(real, size, 0).max(1))
    net = np.where(real[..., None], F, 0).astype("float64").sum(1)
    assert_allclose(np.concatenate(found.net), np.linalg.norm(net, axis=-1))


def test_padding_does_not_count_even_where_it_is_not_finite() -> None:
    F = np.ones((2, 3, 3))
    F[:, 2] = np.nan
    found = ForceStatistics()
    found.add(F, np.array([[True, True, False]] * 2))
    assert found.n == 4
    assert_allclose(found.mean, np.sqrt(3))


@pytest.mark.parametrize("factor", [2.0, 0.4])
@pytest.mark.parametrize("step", [3, T])
def test_the_broken_bond_is_named(factor: float, step: int) -> None:
    R = straight()
    R[17, 4:] += (factor - 1) * 3.8 * np.array([1, 0, 0])
    bonds = Bonds(CHAIN, np.full(N - 1, 3.8), np.ones(N - 1, bool), LIMITS)
    for start in range(0, T, step):
        rows = np.arange(start, min(start + step, T))
        bonds.add(R[rows], rows + 100)
    assert bonds.broken == bonds.worst is not None
    assert (bonds.worst.row, bonds.worst.beads) == (117, (3, 4))
    assert (bonds.n_broken, bonds.n_odd) == (1, 0)
    assert_allclose(bonds.worst.length, 3.8 * factor, atol=0.3)
    assert_allclose(bonds.worst.factor, max(factor, 1 / factor), atol=0.2)


@pytest.mark.parametrize(
    ("length", "stiff", "broken", "odd"),
    [  # of a bond that is 3.8 A usually
        (3.8 * 1.45, True, 0, 0),
        (3.8 * 1.55, True, 1, 0),
        (3.8 / 1.55, True, 1, 0),
        (3.8 * 1.55, False, 0, 0),
        (3.8 * 1.9, False, 0, 0),  # 3.4 A longer, but not twice as long
        (3.8 * 2.1, False, 1, 0),
        (3.8 / 2.1, False, 0, 1),
        (0.9, False, 1, 0),  # one in the other
    ],
)
def test_soft_bonds_may_swing_and_stiff_ones_may_not(
    length: float, stiff: bool, broken: int, odd: int
) -> None:
    R = np.zeros((3, 2, 3))
    R[:, 1, 0] = 3.8, length, 3.8
    bonds = Bonds(np.array([[0, 1]]), np.array([3.8]), np.array([stiff]), LIMITS)
    bonds.add(R, np.arange(3))
    assert (bonds.n_broken, bonds.n_odd) == (broken, odd)
    assert (bonds.broken is not None) == broken
    assert bonds.worst is not None
    assert bonds.worst.row == 1


def test_twice_as_long_is_odd_and_broken_only_when_far_longer() -> None:
    R = np.zeros((2, 2, 3))
    R[:, 1, 0] = 1.2, 2.6  # 1.4 A longer
    bonds = Bonds(np.array([[0, 1]]), np.array([1.2]), np.array([False]), LIMITS)
    bonds.add(R, np.arange(2))
    assert (bonds.n_broken, bonds.n_odd) == (0, 1)


@pytest.mark.parametrize("step", [3, T])
def test_the_overlapping_beads_are_named(step: int) -> None:
    R = straight()
    R[5, 5] = R[5, 1] + [0.3, 0, 0]
    overlaps = Overlaps(unbonded_pairs(N, CHAIN), 1.0)
    for start in range(0, T, step):
        rows = np.arange(start, min(start + step, T))
        overlaps.add(R[rows], rows)
    assert overlaps.worst is not None
    assert (overlaps.worst.row, overlaps.worst.beads, overlaps.worst.count) == (5, (1, 5), 1)
    assert_allclose(overlaps.worst.value, 0.3)


def test_pairs_and_bonds_are_all_pairs() -> None:
    pairs = unbonded_pairs(N, CHAIN)
    together = {tuple(p) for p in np.concatenate([pairs, CHAIN]).tolist()}
    assert len(together) == len(pairs) + len(CHAIN) == N * (N - 1) // 2


def test_pair_distances_of_large_sets_are_sampled_evenly() -> None:
    rows = np.arange(10_000)
    assert sampled(rows, 100).all()
    chosen = np.flatnonzero(sampled(rows, 100_000))
    assert len(chosen) * 100_000 <= 100_000_000
    assert len(set(np.diff(chosen))) == 1


def test_repeated_frames_are_found() -> None:
    R = straight()
    assert repeats(fingerprints(R)) == (0, None)
    R[30], R[31] = R[4], R[4]
    assert repeats(fingerprints(R)) == (2, (4, 30))
