"""Cross-validation from Gram matrices is the one that reads every fold again."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from mlff_cli.coarse.forces.cross_validation import cross_validate, default_grid
from mlff_cli.coarse.forces.force_map import mean_square, noise_map, optimal_map
from mlff_cli.coarse.forces.gram import Gram
from mlff_cli.core.errors import DataError, NumericalError, UsageError
from tests.coarse.harmonic import Oscillators, chain

GROUPS = np.array([0, 1, 0, 2, 2, 3, 4, 5, 4, 4])
GRID = (0.0, 0.1, 10.0, 1e3)


def split(n_frames: int, n_folds: int = 4) -> tuple[Oscillators, list[np.ndarray]]:
    system = chain(groups=GROUPS)
    _, f = system.sample(n_frames, seed=3)
    return system, np.array_split(f, n_folds)


def grams(parts: list[np.ndarray]) -> list[Gram]:
    return [Gram(6).add(part, GROUPS) for part in parts]


@pytest.mark.parametrize("noise", [{}, {"sigma": 0.2, "temperature": 300.0}])
def test_is_the_one_that_reads_every_fold_again(noise):
    system, parts = split(30)
    found = cross_validate(system.mapping, GROUPS, grams(parts), GRID, **noise)
    for at, l2 in enumerate(GRID):
        training, square = [], 0.0
        for k, left_out in enumerate(parts):
            rest = Gram(6).add(np.concatenate(parts[:k] + parts[k + 1 :]), GROUPS)
            fit = optimal_map if not noise else noise_map
            made = fit(system.mapping, GROUPS, rest, l2, *noise.values())
            of_noise = 3 * len(left_out) * made.s * (made.excess**2).sum()
            square += (made.apply(left_out) ** 2).sum() + of_noise
            training.append(mean_square(made, rest).mean())
        assert found.held_out[at] == pytest.approx(square / (3 * 3 * 30), rel=1e-10)
        assert found.training[at] == pytest.approx(np.mean(training), rel=1e-10)
    assert found.l2 == GRID[int(np.argmin(found.held_out))]


def test_few_frames_want_l2_and_the_exact_gram_agrees():
    """Judged by the Gram matrix of infinitely many frames, the mean over 20 sets of few."""
    system, groups = chain(30), np.arange(30)
    exact = Gram(30).add_product(3 * system.gram, 1)
    chosen, none, l2 = [], [], []
    for seed in range(20):
        folds = [Gram(30).add(p, groups) for p in np.array_split(system.sample(20, seed)[1], 5)]
        found = cross_validate(system.mapping, groups, folds)
        whole = Gram.total(folds, 30)
        for values, strength in ((chosen, found.l2), (none, 0.0)):
            values.append(
                mean_square(optimal_map(system.mapping, groups, whole, strength), exact).mean()
            )
        l2.append(found.l2)
    assert np.mean(chosen) < 0.95 * np.mean(none)
    _, many = split(4000)
    assert cross_validate(chain(groups=GROUPS).mapping, GROUPS, grams(many)).l2 < np.median(l2)


def test_training_residual_grows_with_l2():
    system, parts = split(40)
    found = cross_validate(system.mapping, GROUPS, grams(parts))
    assert (np.diff(found.grid) > 0).all()
    assert (np.diff(found.training) > -1e-9).all()
    assert (found.training < found.held_out).all()


def test_order_of_folds_does_not_matter():
    system, parts = split(40)
    found = cross_validate(system.mapping, GROUPS, grams(parts), GRID)
    again = cross_validate(system.mapping, GROUPS, grams(parts[::-1]), GRID[::-1])
    np.testing.assert_allclose(again.held_out, found.held_out, rtol=1e-11)
    assert again.l2 == found.l2


def test_values_with_a_singular_gram_matrix_are_passed_over():
    system, parts = split(2, 2)  # 3 components to fit on, 6 groups
    found = cross_validate(system.mapping, GROUPS, grams(parts), GRID)
    assert np.isnan(found.held_out).tolist() == [True, False, False, False]
    assert found.l2 > 0.0
    with pytest.raises(NumericalError, match="singular"):
        cross_validate(system.mapping, GROUPS, grams(parts), [0.0])


def test_the_edge_of_the_grid_is_told():
    system, parts = split(8)
    assert cross_validate(system.mapping, GROUPS, grams(parts), [0.0, 1e-9]).at_edge
    _, parts = split(400)
    assert not cross_validate(system.mapping, GROUPS, grams(parts)).at_edge


def test_the_grid_is_in_units_of_the_forces():
    _, parts = split(40)
    small, large = default_grid(grams(parts), 10), default_grid(grams([10 * p for p in parts]), 10)
    np.testing.assert_allclose(large, 100 * small, rtol=0.02)  # two digits
    assert default_grid([Gram(6).add(0 * parts[0], GROUPS)], 10)[1] == 1e-6


def test_folds_are_two_or_more_and_filled():
    system, parts = split(8)
    with pytest.raises(UsageError, match="two folds or more, found 1"):
        cross_validate(system.mapping, GROUPS, grams(parts)[:1])
    with pytest.raises(DataError, match="found none"):
        cross_validate(system.mapping, GROUPS, [*grams(parts), Gram(6)])


def test_few_matrices_are_held_at_a_time():
    """Memory holds the folds and one rest, not as many rests as folds."""
    n = 200
    folds = [Gram(n).add_product(np.eye(n) * (k + 1), 100) for k in range(10)]
    mapping, groups = np.zeros((2, n)), np.arange(n)
    mapping[0, 0] = mapping[1, 1] = 1.0
    tracemalloc.start()
    cross_validate(mapping, groups, folds, [1.0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * (8 * n * n)  # the folds were there before
