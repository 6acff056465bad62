"""Slowest linear combinations of features: time-lagged independent component analysis (TICA).

    C0 = 1/2N sum_i (x_i x_i^T + x_i+l x_i+l^T),   Cl = 1/2N sum_i (x_i x_i+l^T + x_i+l x_i^T)
    Cl u = lambda C0 u,   largest lambda first,   timescale = -l / ln lambda

with features x less their mean and l the lag (G. Perez-Hernandez, F. Paul, T. Giorgino, G. De
Fabritiis, F. Noe, J. Chem. Phys. 139, 015102, 2013). Both matrices are symmetrised, as dynamics at
equilibrium are reversible. Directions of C0 that hardly vary are left out before the inversion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlff_cli.core.errors import DataError

LEAST = 1e-8  # of the largest variance: directions below it are left out


@dataclass(frozen=True)
class SlowModes:
    """A projection on the slowest modes.

    Attributes:
        mean: (f,) of the features.
        modes: (f, k), scaled to unit variance; the largest entry of each is above 0.
        eigenvalues: (k,) correlations at the lag, descending.
        lag: in frames.
    """

    mean: np.ndarray
    modes: np.ndarray
    eigenvalues: np.ndarray
    lag: int

    @property
    def timescales(self) -> np.ndarray:
        """(k,) in frames; NaN where the eigenvalue is not between 0 and 1."""
        w = self.eigenvalues
        found = np.full(len(w), np.nan)
        slow = (w > 0) & (w < 1)
        found[slow] = -self.lag / np.log(w[slow])
        return found

    def project(self, features: np.ndarray) -> np.ndarray:
        """(T, k) of features (T, f)."""
        return np.asarray((np.asarray(features, np.float64) - self.mean) @ self.modes)


def slow_modes(series: Sequence[np.ndarray], lag: int, k: int = 2) -> SlowModes:
    """Fit modes to series of evenly spaced frames.

    Args:
        series: (T, f) features each; those with `lag` frames or fewer are left out.
        lag: in frames, 1 or more.
        k: modes wanted; fewer where the features have fewer directions.

    Raises:
        DataError: no series is longer than the lag, or no feature varies.
    """
    long = [np.asarray(s, np.float64) for s in series if len(s) > lag]
    if lag < 1 or not long:
        raise DataError(
            f"slow modes need a lag of 1 or more and series longer than it, found a lag of {lag} "
            f"frames and a longest series of {max(map(len, series), default=0)}"
        )
    pairs = sum(len(x) - lag for x in long)
    mean = sum(x[:-lag].sum(axis=0) + x[lag:].sum(axis=0) for x in long) / (2 * pairs)
    f = len(mean)
    c0, cl = np.zeros((2, f, f))
    for x in long:
        a, b = x[:-lag] - mean, x[lag:] - mean
        c0 += a.T @ a + b.T @ b
        cl += a.T @ b
    c0, cl = c0 / (2 * pairs), (cl + cl.T) / (2 * pairs)
    variance, directions = np.linalg.eigh(c0)
    kept = variance > LEAST * variance[-1]
    if variance[-1] <= 0:
        raise DataError("slow modes need features that vary, found none")
    whiten = directions[:, kept] / np.sqrt(variance[kept])
    eigenvalues, rotated = np.linalg.eigh(whiten.T @ cl @ whiten)
    order = np.argsort(-eigenvalues)[:k]
    modes = whiten @ rotated[:, order]
    sign = np.sign(modes[np.abs(modes).argmax(axis=0), np.arange(modes.shape[1])])
    return SlowModes(mean, modes * sign, eigenvalues[order], lag)
