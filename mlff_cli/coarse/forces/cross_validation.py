"""Regularisation of a force map by cross-validation, from one Gram matrix per fold of the frames.

    G_(-k) = sum_(j != k) T_j G_j / sum_(j != k) T_j,    W_k = argmin on G_(-k) + l2 D
    held out (l2) = sum_k T_k tr(W_k G_k W_k^T) / (n T)

Sums of squares of all maps on all folds follow from the folds' Gram matrices: forces are not read
again, and the cost is a Cholesky factor per fold and l2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlff_cli.coarse.forces.force_map import ForceMap, mean_square, noise_map, optimal_map
from mlff_cli.coarse.forces.gram import Gram
from mlff_cli.core.errors import NumericalError, UsageError

SHARES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)  # of the mean square force on an atom


@dataclass(frozen=True)
class CrossValidation:
    """Residuals over a grid of l2; (kcal/mol/angstrom)^2 per component, mean over beads.

    Attributes:
        l2: with the smallest held-out residual.
        grid: (L,) values of l2 that were tried, ascending.
        training: (L,) mean over folds of the residual on the frames fitted on; NaN where G is
            singular.
        held_out: (L,) mean over frames of the residual on the fold left out; NaN likewise.
    """

    l2: float
    grid: np.ndarray
    training: np.ndarray
    held_out: np.ndarray

    @property
    def at_edge(self) -> bool:
        """Whether `l2` is the largest of the grid: an even larger one may do better."""
        return bool(self.l2 == self.grid[-1])


def default_grid(folds: Sequence[Gram], n_atoms: int) -> np.ndarray:
    """Values of l2 (L,) from none to ten times the mean square force on an atom, ascending."""
    size = sum(float(np.trace(fold.matrix)) * fold.n_frames for fold in folds)
    size /= sum(fold.n_frames for fold in folds) * n_atoms
    return np.array([float(f"{share * (size or 1.0):.1e}") for share in SHARES])


def cross_validate(
    mapping: np.ndarray,
    groups: np.ndarray,
    folds: Sequence[Gram],
    grid: Sequence[float] | np.ndarray | None = None,
    *,
    sigma: float | None = None,
    temperature: float | None = None,
) -> CrossValidation:
    """Choose l2 by the mean square force on frames that were not fitted on.

    Args:
        mapping: M (n, N), rows that add up to 1.
        groups: (N,) group of every atom, 0 to g - 1.
        folds: Gram matrices of two or more parts of the frames; parts that follow one another in
            time must be long, or each is as good as part of its neighbours.
        grid: values of l2 to try; None takes `default_grid`.
        sigma: width of the noise in angstrom; None validates the optimal map.
        temperature: of the noise, K.

    Raises:
        DataError: the mapping is not one, a group meets two beads, or a fold has no frames.
        UsageError: there are fewer than two folds, or an l2 is negative.
        NumericalError: G is singular with every l2 of the grid.
    """
    if len(folds) < 2:
        raise UsageError(f"cross-validation needs two folds or more, found {len(folds)}")
    values = default_grid(folds, len(groups)) if grid is None else np.unique(np.asarray(grid))

    def fit(gram: Gram, l2: float) -> ForceMap:
        if sigma is None or temperature is None:
            return optimal_map(mapping, groups, gram, l2)
        return noise_map(mapping, groups, gram, l2, sigma, temperature)

    share = np.array([fold.n_frames for fold in folds], dtype=float)
    share /= share.sum()
    training, held_out = np.zeros(len(values)), np.zeros(len(values))
    failure: NumericalError | None = None
    for k, fold in enumerate(folds):  # one rest at a time: each is g^2 numbers
        rest = Gram.total([*folds[:k], *folds[k + 1 :]], fold.n_groups)
        for at in np.flatnonzero(~np.isnan(held_out)):
            try:
                made = fit(rest, float(values[at]))
            except NumericalError as error:
                failure = error
                training[at] = held_out[at] = np.nan
                continue
            training[at] += mean_square(made, rest).mean() / len(folds)
            held_out[at] += share[k] * mean_square(made, fold).mean()
    if failure is not None and np.isnan(held_out).all():
        raise failure
    return CrossValidation(float(values[np.nanargmin(held_out)]), values, training, held_out)
