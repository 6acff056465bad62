"""Noise: normal, independent between frames and seeds, and the same in any company."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mlff_cli.coarse.bead_noise import bead_noise


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=6, unique=True), st.integers(0, 9))
def test_a_row_draws_the_same_in_any_company(rows: list[int], seed: int) -> None:
    together = bead_noise(seed, rows, 4)
    alone = np.concatenate([bead_noise(seed, [t], 4) for t in rows])
    np.testing.assert_array_equal(together, alone)


def test_it_is_standard_normal_and_rows_are_independent() -> None:
    eps = bead_noise(3, range(4000), 5)
    assert stats.kstest(eps.ravel(), "norm").pvalue > 1e-3
    flat = eps.reshape(len(eps), -1)
    # standard error of a correlation of 4000 pairs is 0.016; 15 of them are looked at
    lagged = [np.corrcoef(flat[1:, k], flat[:-1, k])[0, 1] for k in range(15)]
    assert np.abs(lagged).max() < 0.07


def test_seeds_differ() -> None:
    assert not np.isclose(bead_noise(0, [0], 3), bead_noise(1, [0], 3)).any()


def test_no_rows() -> None:
    assert bead_noise(0, [], 3).shape == (0, 3, 3)
