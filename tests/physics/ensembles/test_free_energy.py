"""Free energies of Boltzmann distributions come back; so does what they are uncertain by."""

from __future__ import annotations

import numpy as np
import pytest

from mlff_cli.core.errors import DataError
from mlff_cli.physics.ensembles.free_energy import (
    difference,
    free_energy,
    uncertainty,
    uncertainty_of_blocks,
)
from mlff_cli.physics.ensembles.histograms import Axis, circle, counted, grid_cells

KT = 0.6


def test_the_free_energy_of_a_boltzmann_distribution_is_its_energy() -> None:
    u = np.random.default_rng(0).uniform(0, 3, (5, 7))
    assert np.allclose(free_energy(np.exp(-u / KT), KT), u - u.min())


def test_an_empty_cell_is_infinite() -> None:
    f = free_energy(np.array([4, 0, 1]), KT)
    assert np.isinf(f).tolist() == [False, True, False]
    assert np.isinf(uncertainty(np.array([4, 0, 1]), KT, 5)).tolist() == [False, True, False]


def test_the_uncertainty_is_the_scatter_of_repeated_samples() -> None:
    rng = np.random.default_rng(1)
    p, n = np.array([0.5, 0.3, 0.15, 0.05]), 2000
    drawn = rng.multinomial(n, p, 4000)
    scatter = (-KT * np.log(drawn / n)).std(axis=0)
    assert np.allclose(uncertainty(p, KT, n), scatter, rtol=0.06)


def test_blocks_see_that_cells_decorrelate_at_different_speeds() -> None:
    """Two basins that are kept for 20 frames, and a barrier that is visited frame by frame."""

    def run(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        basin = np.repeat(rng.choice([0, 2], 200), 20)
        return np.where(rng.random(len(basin)) < 0.05, 1, basin).reshape(40, 100)

    def counts(blocks: np.ndarray) -> np.ndarray:
        return np.stack([np.bincount(b, minlength=3) for b in blocks])

    runs = [counts(run(seed)) for seed in range(60)]
    shares = np.array([r.sum(axis=0) / r.sum() for r in runs])
    scatter = (-KT * np.log(shares)).std(axis=0)
    found = np.mean([uncertainty_of_blocks(r, KT) for r in runs], axis=0)
    assert np.allclose(found, scatter, rtol=0.25)
    of_the_slowest = uncertainty(shares.mean(axis=0), KT, 200)
    assert of_the_slowest[1] > 3 * scatter[1]
    with pytest.raises(DataError, match="two blocks"):
        uncertainty_of_blocks(runs[0][:1], KT)


def test_differences_do_not_see_the_constant_and_skip_empty_cells() -> None:
    u = np.array([0.0, 1.0, 2.0, 0.5])
    p, q = np.exp(-u / KT), np.exp(-(u + np.array([0.0, 0.4, 0.0, 0.0])) / KT)
    delta, rms = difference(p, q, KT)
    weight = p / p.sum()
    assert weight @ delta == pytest.approx(0.0, abs=1e-12)
    assert delta[1] - delta[0] == pytest.approx(0.4)
    assert rms == pytest.approx(0.4 * np.sqrt(weight[1] * (1 - weight[1])))
    delta, _ = difference(p, np.array([1, 0, 1, 1]), KT)
    assert np.isnan(delta).tolist() == [False, True, False, False]
    assert np.isnan(difference(np.array([1, 0]), np.array([0, 1]), KT)[1])


def test_every_value_falls_into_a_cell() -> None:
    axis = Axis(0.0, 1.0, 4)
    assert axis.cells(np.array([-1e30, 0.0, 0.24, 0.25, 0.99, 1.0, 7e30])).tolist() == (
        [0, 0, 0, 1, 3, 3, 3]
    )
    turns = circle(8)
    phi = np.linspace(-np.pi, np.pi, 100, endpoint=False) + 0.01
    for turn in (-2, -1, 1, 2):
        assert np.array_equal(turns.cells(phi + 2 * np.pi * turn), turns.cells(phi))
    assert turns.cells(np.array([np.pi, -np.pi])).tolist() == [0, 0]


def test_a_grid_counts_as_numpy_does() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 1000))
    axes = (Axis.of(x, 9), Axis.of(y, 5))
    found = counted(grid_cells((x, y), axes), axes)
    wanted, _, _ = np.histogram2d(x, y, bins=[a.edges for a in axes])
    assert np.array_equal(found, wanted)


def test_an_axis_of_what_does_not_vary_is_one() -> None:
    axis = Axis.of(np.full(3, 2.0), 3)
    assert axis.cells(np.full(3, 2.0)).tolist() == [1, 1, 1]


def test_bad_input_is_refused() -> None:
    with pytest.raises(DataError, match="finite values"):
        Axis.of(np.array([1.0, np.nan]), 3)
    with pytest.raises(DataError, match="cells and a range"):
        Axis(1.0, 1.0, 3)
    with pytest.raises(DataError, match="not all 0"):
        free_energy(np.zeros(3), KT)
    with pytest.raises(DataError, match="0 or more"):
        free_energy(np.array([1.0, -1.0, 3.0]), KT)
