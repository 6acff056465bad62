"""Divergences: a symmetric distance of distributions, and what chance makes of few frames."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from mlff_cli.core.errors import DataError
from mlff_cli.physics.ensembles.divergence import compare, jensen_shannon, split_half_floor

counts = st.lists(st.integers(0, 1000), min_size=6, max_size=6).filter(lambda c: sum(c) > 0)


@given(counts, counts)
def test_it_is_symmetric_bounded_and_that_of_scipy(p: list[int], q: list[int]) -> None:
    found = jensen_shannon(np.array(p), np.array(q))
    assert found == pytest.approx(jensen_shannon(np.array(q), np.array(p)), abs=1e-14)
    assert 0.0 <= found <= np.log(2) + 1e-12
    assert found == pytest.approx(jensenshannon(p, q) ** 2, abs=1e-9)


def test_it_is_zero_for_one_distribution_and_largest_without_overlap() -> None:
    p = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert jensen_shannon(p, 7 * p) == pytest.approx(0.0, abs=1e-15)
    assert jensen_shannon(np.array([1, 0, 5]), np.array([0, 2, 0])) == pytest.approx(np.log(2))


def test_the_floor_is_what_chance_makes_of_two_samples() -> None:
    """To first order JSD of two samples of n frames is chi^2 / 8 of their difference: (K-1)/4n."""
    rng = np.random.default_rng(0)
    n_cells, n = 20, 4000
    p = rng.uniform(0.5, 1.5, n_cells)
    frames = rng.choice(n_cells, 2 * n, p=p / p.sum())
    floor = split_half_floor(frames, n_cells)
    assert floor.mean == pytest.approx((n_cells - 1) / (4 * n), rel=0.1)
    quarter = split_half_floor(frames, n_cells, frames=n // 4)
    assert quarter.mean == pytest.approx(4 * floor.mean, rel=0.15)


def test_the_same_ensemble_lies_at_the_floor_and_another_above_it() -> None:
    rng = np.random.default_rng(1)
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
    reference = rng.choice(3, 4000, p=p)
    same = compare(reference, rng.choice(3, 3000, p=p), 3)
    assert same.frames == 2000
    assert same.ratio < 4
    assert same.in_order < 5e-3
    other = compare(reference, rng.choice(3, 3000, p=q), 3)
    assert other.divergence.mean == pytest.approx(jensen_shannon(p, q), rel=0.1)
    assert other.ratio > 50
    assert other.floor == same.floor  # the reference's alone


def test_the_smaller_ensemble_sets_the_number_of_frames() -> None:
    rng = np.random.default_rng(2)
    reference = rng.integers(0, 30, 4000)
    few = compare(reference, rng.integers(0, 30, 100), 30)
    many = compare(reference, rng.integers(0, 30, 9000), 30)
    assert (few.frames, many.frames) == (100, 2000)
    assert few.floor.mean > 10 * many.floor.mean
    assert few.ratio == pytest.approx(1.0, abs=0.3)


def test_a_reference_that_drifts_is_seen() -> None:
    drifting = np.repeat(np.arange(10), 200)
    found = compare(drifting, drifting, 10)
    assert found.in_order == pytest.approx(np.log(2))
    assert found.floor.mean < 0.01


def test_draws_depend_on_the_seed_alone() -> None:
    cells = np.random.default_rng(3).integers(0, 9, 500)
    assert split_half_floor(cells, 9, seed=5) == split_half_floor(cells, 9, seed=5)
    assert split_half_floor(cells, 9, seed=5) != split_half_floor(cells, 9, seed=6)


def slow_and_fast(runs: int, seed: int, fast: np.ndarray) -> np.ndarray:
    """Cells 4 s + f: s is drawn anew every 50 frames, f every frame."""
    rng = np.random.default_rng(seed)
    slow = np.repeat(rng.choice(2, runs, p=[0.7, 0.3]), 50)
    return np.asarray(4 * slow + rng.choice(4, len(slow), p=fast))


def test_blocks_see_what_single_independent_frames_cannot() -> None:
    flat, bent = np.full(4, 0.25), np.array([0.5, 0.3, 0.15, 0.05])
    reference, same = slow_and_fast(60, 0, flat), slow_and_fast(60, 1, flat)
    other = slow_and_fast(60, 2, bent)
    single = compare(reference[::50], other[::50], 8)
    blocks = compare(reference, other, 8, block=50)
    assert blocks.frames == 50 * single.frames
    assert blocks.floor.mean < 0.2 * single.floor.mean
    assert blocks.ratio > 2 * single.ratio
    assert compare(reference, same, 8, block=50).ratio < 3


def test_blocks_do_not_hide_how_seldom_the_slow_motion_was_seen() -> None:
    """Frame by frame the floor would be that of independent frames, far below what is true."""
    flat = np.full(4, 0.25)
    apart = [
        jensen_shannon(*(np.bincount(slow_and_fast(30, s + k, flat), minlength=8) for k in (0, 1)))
        for s in range(0, 200, 2)
    ]
    long = slow_and_fast(60, 999, flat)
    floor = split_half_floor(long, 8, block=50).mean
    assert floor == pytest.approx(np.mean(apart), rel=0.35)
    assert split_half_floor(long, 8).mean < 0.4 * floor


def test_a_floor_that_leaves_no_room_says_nothing() -> None:
    rng = np.random.default_rng(0)
    few = compare(rng.integers(0, 1296, 100), rng.integers(0, 1296, 100), 1296)
    many = compare(rng.integers(0, 9, 4000), rng.integers(0, 9, 4000), 9)
    assert (few.tells, many.tells) == (False, True)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(DataError, match="same cells"):
        jensen_shannon(np.ones(3), np.ones(4))
    with pytest.raises(DataError, match="not all 0"):
        jensen_shannon(np.ones(3), np.zeros(3))
    with pytest.raises(DataError, match="7 frames are no whole blocks of 3"):
        compare(np.zeros(7, int), np.zeros(6, int), 2, block=3)
    with pytest.raises(DataError, match="2 to 1 blocks of 2 frames, found 1 of 2"):
        compare(np.zeros(4, int), np.zeros(6, int), 2, block=2)
    with pytest.raises(DataError, match="2 to 1 independent frames, found 1 of 3"):
        compare(np.array([0, 1, 1]), np.zeros(5, int), 2)
