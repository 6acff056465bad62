"""Fitted self-atomic energies: exact on exact data, robust to outliers, kind to rare elements."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlff_cli.data.compositions import Block
from mlff_cli.data.sae_fit import SAEFit, fit
from tests.synthetic import self_energy

T = TypeVar("T")
CUT = (2.0, 98.0)


def fit_dense(
    elements: list[int], x: np.ndarray, y: np.ndarray, cut: tuple[float, float] = CUT
) -> SAEFit:
    """Fit x (n, K), y (n,) in blocks of 64 molecules."""

    def passes(description: str, look: Callable[[Block], T]) -> Iterator[T]:
        for start in range(0, len(y), 64):
            part = slice(start, start + 64)
            counts = np.ascontiguousarray(x[part].T.astype("float64"))
            yield look(Block(np.array(elements), counts, y[part]))

    return fit(passes, cut)


def textbook(x: np.ndarray, y: np.ndarray, cut: tuple[float, float]) -> tuple[np.ndarray, ...]:
    """The same by dense least squares on everything at once: c, covariance, kept."""
    first = np.linalg.lstsq(x, y, rcond=None)[0]
    r = y - x @ first
    low, high = np.percentile(r, cut)
    kept = (r >= low) & (r <= high)
    second = np.linalg.lstsq(x[kept], y[kept], rcond=None)[0]
    error = y[kept] - x[kept] @ second
    variance = (error**2).sum() / (kept.sum() - x.shape[1])
    return second, variance * np.linalg.inv(x[kept].T @ x[kept]), kept


@given(seed=st.integers(0, 1000), cut=st.sampled_from([(0.0, 100.0), (2.0, 98.0), (10.0, 60.0)]))
def test_equals_the_textbook(seed: int, cut: tuple[float, float]) -> None:
    rng = np.random.default_rng(seed)
    elements = [1, 6, 8]
    x = rng.integers(0, 9, size=(300, 3)).astype("float64")
    y = x @ self_energy(np.array(elements)) + rng.normal(size=300)
    found = fit_dense(elements, x, y, cut)
    c, covariance, kept = textbook(x, y, cut)
    np.testing.assert_allclose(list(found.sae.values()), c, atol=1e-8)
    uncertainty = [found.uncertainty[z] or 0.0 for z in elements]
    np.testing.assert_allclose(uncertainty, np.sqrt(np.diag(covariance)), rtol=1e-6)
    assert found.n_kept == kept.sum()
    rms = np.sqrt(((y - x @ c)[kept] ** 2).mean())
    assert found.rmse_kept == pytest.approx(rms, rel=1e-8)


def test_exact_energies_give_exact_values_for_every_element() -> None:
    """All 118 elements at once, energies near -1e7 eV: what is left is their rounding."""
    rng = np.random.default_rng(0)
    elements = list(range(1, 119))
    x = rng.poisson(0.2, size=(2000, 118))
    truth = self_energy(np.array(elements))
    found = fit_dense(elements, x, x @ truth)
    np.testing.assert_allclose(list(found.sae.values()), truth, rtol=0, atol=2e-9)


def test_outliers_do_not_move_the_second_fit() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(1, 9, size=(4000, 3))
    truth = self_energy(np.array([1, 6, 8]))
    y = x @ truth + 0.01 * rng.normal(size=4000)
    y[::60] += 300.0  # 1.7 % of the molecules, all to one side
    robust = fit_dense([1, 6, 8], x, y)
    naive = fit_dense([1, 6, 8], x, y, (0.0, 100.0))
    off = [np.abs(np.array(list(f.sae.values())) - truth).max() for f in (robust, naive)]
    assert off[0] < 0.002
    assert off[1] > 100 * off[0]
    assert robust.rmse_all > 30 > 0.02 > robust.rmse_kept


def test_uncertainties_cover_the_truth() -> None:
    """Of 600 estimates with Gaussian noise about 68 % lie within one standard uncertainty."""
    truth = self_energy(np.array([1, 6, 8]))
    inside = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        x = rng.integers(0, 9, size=(100, 3))
        found = fit_dense([1, 6, 8], x, x @ truth + rng.normal(size=100), (0.0, 100.0))
        off = np.abs(np.array(list(found.sae.values())) - truth)
        inside += int((off < np.array(list(found.uncertainty.values()))).sum())
    assert 0.68 - 0.06 < inside / 600 < 0.68 + 0.06


def test_an_element_of_outliers_only_keeps_its_molecules() -> None:
    """Two xenon molecules that disagree sit in both tails of the residual."""
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.integers(1, 9, size=(1000, 2)), np.zeros((1000, 1))])
    x[[10, 500], 2] = 1
    y = x @ self_energy(np.array([1, 6, 54])) + 0.01 * rng.normal(size=1000)
    y[10] += 50.0
    y[500] -= 50.0
    found = fit_dense([1, 6, 54], x, y)
    assert found.protected == {54}
    assert found.n_protected == 2
    assert found.molecules[54] == 2
    assert found.n_kept == 960 + 2
    assert found.sae[54] == pytest.approx(self_energy(54), abs=0.1)
    assert not found.ambiguities


def test_molecules_that_alone_tell_two_elements_apart_are_kept() -> None:
    """Na and Cl come 1:1 but for two outliers in opposite tails: without them they are one."""
    rng = np.random.default_rng(0)
    salt = rng.integers(0, 3, size=1000)
    x = np.column_stack([rng.integers(1, 9, size=1000), salt, salt])
    x[[7, 700]] = (3, 1, 0)
    y = x @ self_energy(np.array([1, 11, 17])) + 0.01 * rng.normal(size=1000)
    y[7] += 50.0
    y[700] -= 50.0
    found = fit_dense([1, 11, 17], x, y)
    assert not found.ambiguities
    assert found.rank == 3
    assert found.protected & {11, 17}
    assert found.sae[11] == pytest.approx(self_energy(11), abs=0.1)
    without = fit_dense([1, 11, 17], np.delete(x, [7, 700], 0), np.delete(y, [7, 700]))
    assert [a.elements for a in without.ambiguities] == [(11, 17)]


def test_minimum_norm_of_alkane_like_data() -> None:
    n = np.random.default_rng(0).integers(1, 9, size=200)
    x = np.column_stack([4 * n, n])
    found = fit_dense([1, 6], x, x @ np.array([-13.6, -1035.0]))
    (ambiguity,) = found.ambiguities
    assert ambiguity.elements == (1, 6)
    c = np.array([found.sae[1], found.sae[6]])
    np.testing.assert_allclose(x @ c, x @ np.array([-13.6, -1035.0]), rtol=1e-12)
    assert c @ np.array([1.0, -4.0]) == pytest.approx(0, abs=1e-9)
    assert found.uncertainty == {1: None, 6: None}


def test_one_molecule() -> None:
    found = fit_dense([1, 8], np.array([[2, 1]]), np.array([-2040.0]))
    assert found.n_kept == 1
    assert 2 * found.sae[1] + found.sae[8] == pytest.approx(-2040.0)
    assert found.uncertainty == {1: None, 8: None}
