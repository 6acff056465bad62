"""Permutations that are functions: one to one, all equally likely, none like its neighbour."""

from __future__ import annotations

from math import factorial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlff_cli.data.mixing import SMALL, key, permuted

SIGMAS = 5.0  # of a test statistic; by chance once in a million


@given(st.integers(1, 3 * SMALL), st.integers(0, 2**63 - 1))
def test_every_number_has_one_image(n: int, seed: int) -> None:
    images = permuted(np.arange(n), n, key(seed))
    assert np.array_equal(np.sort(images), np.arange(n))


@given(st.integers(SMALL + 1, 10**9), st.lists(st.integers(0, 10**9), min_size=1, max_size=50))
def test_a_part_is_what_the_whole_says(n: int, numbers: list[int]) -> None:
    x = np.array(numbers) % n
    together = permuted(x, n, key(7))
    alone = [int(permuted(x[i : i + 1], n, key(7))[0]) for i in range(len(x))]
    assert together.tolist() == alone
    assert ((together >= 0) & (together < n)).all()


def test_keys_may_differ_within_one_call() -> None:
    for n in (10, SMALL + 10):
        keys = key(3, np.array([0, 1, 0, 2]))
        x = np.array([5, 5, 6, 7])
        expected = [int(permuted(x[i : i + 1], n, keys[i : i + 1])[0]) for i in range(4)]
        assert permuted(x, n, keys).tolist() == expected


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_all_permutations_of_few_are_equally_likely(n: int) -> None:
    draws = 300 * factorial(n)
    keys = key(1, np.arange(draws))
    images = np.stack([permuted(np.full(draws, i), n, keys) for i in range(n)], axis=1)
    _, counts = np.unique(images @ n ** np.arange(n), return_counts=True)
    assert len(counts) == factorial(n)
    assert_uniform(counts)


@pytest.mark.parametrize("n", [SMALL, SMALL + 1, 12_345, 1 << 20])
def test_images_are_spread_evenly_and_neighbours_are_strangers(n: int) -> None:
    x = np.arange(n)
    images = permuted(x, n, key(2))
    for values in (images[: n // 8], (images[1:] - images[:-1]) % n):
        assert_uniform(np.histogram(values, bins=32, range=(0, n))[0])
    for other in (x, np.roll(images, 1), permuted(x, n, key(3))):
        assert abs(np.corrcoef(images, other)[0, 1]) < SIGMAS / np.sqrt(n)


def assert_uniform(counts: np.ndarray) -> None:
    """Chi squared of equal expectations, against its mean and standard deviation."""
    expected = counts.sum() / len(counts)
    chi2 = float(((counts - expected) ** 2).sum() / expected)
    degrees = len(counts) - 1
    assert chi2 < degrees + SIGMAS * np.sqrt(2 * degrees)
