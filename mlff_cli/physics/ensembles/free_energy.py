"""Free energies of cells, and what they are uncertain by.

    F_i = -kT ln p_i + const, the lowest cell at 0;   F is infinite where no frame is

    sigma(F_i) = kT sigma(p_i) / p_i

    sigma(p_i)^2 = var_b(p_ib) / B                    over B blocks of frames that are independent
    sigma(p_i)^2 = p_i (1 - p_i) / N_eff              where there are too few blocks
                                                      N_eff = frames / statistical inefficiency

Cells decorrelate at different speeds: barriers are left at once, basins are not. Blocks see each
cell's own; the second estimate takes the slowest motion for all. Neither means anything where a
cell holds less than a frame per independent sample.
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


def uncertainty_of_blocks(blocks: np.ndarray, kt: float) -> np.ndarray:
    """Standard error of F (cells,) from independent blocks; infinite where a cell is empty.

    Args:
        blocks: (B, cells) frames in every cell; the blocks are equally long.
        kt: thermal energy.

    Raises:
        DataError: fewer than two blocks.
    """
    if len(blocks) < 2:
        raise DataError(f"a spread needs two blocks or more, found {len(blocks)}")
    p = blocks / blocks.sum(axis=1, keepdims=True)  # [b, i]
    sigma = p.std(axis=0, ddof=1) / np.sqrt(len(p))
    with np.errstate(divide="ignore", invalid="ignore"):
        found: np.ndarray = np.where(sigma > 0, kt * sigma / p.mean(axis=0), np.inf)
    return found


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
