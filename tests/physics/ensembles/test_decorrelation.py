"""Statistical inefficiencies of processes whose correlation is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from mlff_cli.core.errors import DataError
from mlff_cli.physics.ensembles.decorrelation import (
    autocorrelation,
    decorrelated,
    independent_blocks,
    slowest,
    statistical_inefficiency,
)


def ar1(a: float, n: int, seed: int = 0) -> np.ndarray:
    """x_t+1 = a x_t + noise, of unit variance; C(t) = a^t."""
    rng = np.random.default_rng(seed)
    kicks = rng.normal(size=n) * np.sqrt(1 - a * a)
    kicks[0] = rng.normal()
    return np.asarray(lfilter([1.0], [1.0, -a], kicks))


@pytest.mark.parametrize("a", [0.0, 0.5, 0.9])
def test_g_is_that_of_an_autoregressive_process(a: float) -> None:
    assert statistical_inefficiency([ar1(a, 200_000)]) == pytest.approx((1 + a) / (1 - a), rel=0.08)


def test_runs_of_one_ensemble_are_pooled() -> None:
    a = 0.8
    runs = [ar1(a, n, seed) for seed, n in enumerate((3000, 20_000, 777, 40_000))]
    assert statistical_inefficiency(runs) == pytest.approx((1 + a) / (1 - a), rel=0.12)
    one = ar1(a, 4000)
    both = autocorrelation([one, one])
    assert np.allclose(both, autocorrelation([one]))


def test_the_correlation_is_the_sum_over_pairs() -> None:
    x = np.random.default_rng(0).normal(size=(50, 2)).cumsum(axis=0)
    d = x - x.mean(axis=0)
    direct = [(d[: 50 - t] * d[t:]).sum() / (50 - t) for t in range(50)]
    assert np.allclose(autocorrelation([x]), np.array(direct) / direct[0])


def test_frames_that_repeat_count_once() -> None:
    x = np.repeat(np.random.default_rng(1).normal(size=5000), 10)
    assert statistical_inefficiency([x]) == pytest.approx(10, rel=0.1)


def test_an_angle_has_no_zero() -> None:
    phi = 0.3 * ar1(0.95, 20_000).cumsum() * 0.1
    g = [
        statistical_inefficiency([np.stack([np.cos(phi + s), np.sin(phi + s)], 1)])
        for s in (0.0, 1.0, 2.5)
    ]
    assert np.allclose(g, g[0])


def test_what_never_varies_is_not_correlated() -> None:
    assert statistical_inefficiency([np.ones(100)]) == 1.0
    assert statistical_inefficiency([np.ones(1)]) == 1.0


def test_the_slowest_observable_is_named() -> None:
    found = slowest({"fast": [ar1(0.1, 5000)], "slow": [ar1(0.9, 5000)]})
    assert found[0] == "slow"
    assert found[1] > 10


def test_decorrelated_frames_are_g_apart_in_every_run() -> None:
    assert decorrelated([10, 3], 2.5).tolist() == [0, 2, 5, 7, 10, 12]
    assert decorrelated([4, 2], 1.0).tolist() == [0, 1, 2, 3, 4, 5]
    assert len(decorrelated([1000], 3.7)) == pytest.approx(1000 / 3.7, abs=1)
    assert decorrelated([], 2.0).tolist() == []


def test_blocks_are_whole_and_lie_in_one_run() -> None:
    rows = independent_blocks([10, 3, 7], 4.0, per_sample=2, samples=1)
    assert rows.tolist() == [0, 2, 4, 6, 10, 12, 13, 15, 17, 19]
    assert independent_blocks([10], 4.0, per_sample=1, samples=3).tolist() == [0, 4, 8]
    assert independent_blocks([9], 4.5, per_sample=1, samples=3).tolist() == []
    assert independent_blocks([3, 3], 1.0, per_sample=1, samples=1).tolist() == list(range(6))


def test_nothing_has_no_correlation() -> None:
    with pytest.raises(DataError, match="needs frames"):
        autocorrelation([])
    with pytest.raises(DataError, match="an observable is needed"):
        slowest({})
