"""The maximum of a concave likelihood."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlff_cli.coarse.priors.log_linear import log_linear
from mlff_cli.core.errors import NumericalError


def problem(seed: int, k: int = 3, bins: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    q = np.linspace(0.0, np.pi, bins)
    x = np.stack([np.cos((i + 1) * q) for i in range(k)], 1)
    measure = np.sin(q) + 0.1
    p = measure * np.exp(x @ rng.normal(size=k))
    return rng.multinomial(5000, p / p.sum()).astype(float), measure, x


def density(c: np.ndarray, measure: np.ndarray, x: np.ndarray) -> np.ndarray:
    p = measure * np.exp(x @ c)
    return p / p.sum()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5))
def test_means_of_the_features_are_those_of_the_samples(seed: int, k: int) -> None:
    """Where L is stationary, without a penalty: X^T n/N = X^T p."""
    n, measure, x = problem(seed, k)
    fit = log_linear(n, measure, x)
    np.testing.assert_allclose(x.T @ density(fit.c, measure, x), x.T @ n / n.sum(), atol=1e-6)
    assert fit.freedom == pytest.approx(k, rel=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_no_step_away_is_better(seed: int) -> None:
    n, measure, x = problem(seed)
    penalty = np.diag([3.0, 2.0, 1.0])
    fit = log_linear(n, measure, x, penalty)

    def objective(c: np.ndarray) -> float:
        return float(n @ np.log(density(c, measure, x)) - 0.5 * c @ penalty @ c)

    rng = np.random.default_rng(seed)
    for _ in range(20):
        assert objective(fit.c) >= objective(fit.c + 1e-2 * rng.normal(size=3))


def test_the_start_does_not_matter() -> None:
    n, measure, x = problem(1)
    a = log_linear(n, measure, x)
    b = log_linear(n, measure, x, start=np.array([5.0, -4.0, 3.0]))
    np.testing.assert_allclose(a.c, b.c, atol=1e-5)
    assert a.likelihood == pytest.approx(b.likelihood, rel=1e-9)


def test_a_penalty_lowers_the_effective_number_of_parameters() -> None:
    n, measure, x = problem(2)
    freedom = [log_linear(n, measure, x, p * np.eye(3)).freedom for p in (0.0, 1e2, 1e4, 1e8)]
    assert freedom == sorted(freedom, reverse=True)
    assert freedom[-1] < 0.01


def test_a_direction_that_changes_nothing_stays_at_zero() -> None:
    n, measure, x = problem(3)
    twin = np.concatenate([x, np.ones((len(x), 1))], 1)
    fit = log_linear(n, measure, twin)
    assert abs(fit.c[3]) < 1e-2  # rounding, where 1e9 would do as well
    np.testing.assert_allclose(fit.c[:3], log_linear(n, measure, x).c, atol=1e-5)


def test_values_that_are_not_numbers_are_told() -> None:
    n, measure, x = problem(4)
    x[3, 1] = np.nan
    with pytest.raises(NumericalError, match="does not converge"):
        log_linear(n, measure, x)
