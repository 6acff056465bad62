"""Free energies of cells, and what they are uncertain by.

    F_i = -kT ln p_i + const, the lowest cell at 0;   F is infinite where no frame is

    sigma(F_i) = kT sqrt((1 - p_i) / (p_i N_eff)),    N_eff = frames / statistical inefficiency

The second line is the variance of a share of N_eff independent frames, carried over to its
logarithm; it means nothing where a cell holds less than a frame of them.
"""

from __future__ import annotations

import numpy as np

from mlff_cli.core.errors import DataError


def free_energy(counts: np.ndarray, kt: float) -> np.ndarray:
    """F of the shape of `counts`, in the unit of `kt`; infinite where a cell is empty.

    Args:
        counts: frames in every cell, or shares.
        kt: thermal energy.

    Raises:
        DataError: no cell has a frame, or one has less than none.
    """
    p = shares(counts)
    with np.errstate(divide="ignore"):
        f: np.ndarray = -kt * np.log(p)
    return np.asarray(f - f.min())


def uncertainty(counts: np.ndarray, kt: float, n_effective: float) -> np.ndarray:
    """Standard error of F of the shape of `counts`; infinite where a cell is empty.

    Args:
        counts: frames in every cell, or shares.
        kt: thermal energy.
        n_effective: independent frames that the counts stand for.
    """
    p = shares(counts)
    with np.errstate(divide="ignore"):
        sigma: np.ndarray = kt * np.sqrt((1.0 - p) / (p * n_effective))
    return sigma


def difference(p: np.ndarray, q: np.ndarray, kt: float) -> tuple[np.ndarray, float]:
    """F of q less F of p, and its root mean square, weighted by p.

    Cells that either leaves empty are NaN and do not count. The constant is the one that makes the
    weighted mean zero, as a free energy has none of its own.

    Args:
        p: frames in every cell of the reference.
        q: frames in every cell of the other.
        kt: thermal energy.

    Returns:
        The difference of the shape of `p`, and its root mean square (NaN where nothing is common).
    """
    a, b = shares(p), shares(q)
    both = (a > 0) & (b > 0)
    delta = np.full(a.shape, np.nan)
    if not both.any():
        return delta, float("nan")
    delta[both] = -kt * (np.log(b[both]) - np.log(a[both]))
    weight = a[both] / a[both].sum()
    delta[both] -= weight @ delta[both]
    return delta, float(np.sqrt(weight @ delta[both] ** 2))


def shares(counts: np.ndarray) -> np.ndarray:
    """Counts over their sum, float64.

    Raises:
        DataError: they sum to nothing, one is below 0 or not finite.
    """
    values = np.asarray(counts, np.float64)
    total = values.sum()
    if not (np.isfinite(values).all() and (values >= 0).all() and total > 0):
        raise DataError(f"a distribution needs counts of 0 or more and not all 0, sum {total:g}")
    return np.asarray(values / total)
