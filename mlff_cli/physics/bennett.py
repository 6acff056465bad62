"""Free-energy differences from works of one side or of both.

    dF = -ln(Z_t / Z_s)                          reduced; works as in `physics.reweighting`

    one side:   dF = -ln <e^-w_F>,   dF = ln <e^-w_R>                       (Zwanzig)
    both:       sum_i 1/(1 + e^( M + w_F,i - dF)) = sum_j 1/(1 + e^(-M + w_R,j + dF))
                M = ln(n / m)                                               (Bennett)

C. H. Bennett, J. Comput. Phys. 22, 245 (1976); R. W. Zwanzig, J. Chem. Phys. 22, 1420 (1954). The
error of Bennett's estimate is Bennett's own (his eq. 10a in the form of M. R. Shirts, E. Bair,
G. Hooker, V. S. Pande, Phys. Rev. Lett. 91, 140601, 2003, eq. 10, each side's variance over its
independent samples); of one-sided ones it is that of the first order, which is too small where few
samples have all of the weight.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logsumexp

from mlff_cli.core.errors import NumericalError
from mlff_cli.physics.reweighting import Estimate

WIDEST = 1e6  # nats that the root is looked for beyond the works
TOLERANCE = 1e-12


def one_sided(work: np.ndarray, effective: float | None = None) -> Estimate:
    """-ln <e^-w> of one side; with w_R it is -dF.

    Args:
        work: (n,) works, +inf allowed.
        effective: independent samples among n; None: all.

    Raises:
        NumericalError: no sample has a weight.
    """
    w = np.asarray(work, np.float64)
    if not np.isfinite(w).any() or np.isnan(w).any() or np.isneginf(w).any():
        raise NumericalError(f"a free energy needs works, found {np.isfinite(w).sum()} finite ones")
    shift = float(logsumexp(-w) - np.log(len(w)))
    relative = np.exp(-w - shift)  # mean 1
    return Estimate(-shift, float(np.sqrt(relative.var() / (effective or len(w)))))


def bennett(
    forward: np.ndarray, reverse: np.ndarray, effective: tuple[float, float] | None = None
) -> Estimate:
    """Free-energy difference dF of both sides together.

    Args:
        forward: (n,) w_F, +inf allowed.
        reverse: (m,) w_R, +inf allowed.
        effective: independent samples among n and m; None: all.

    Raises:
        NumericalError: a side has no finite work, or no root was found.
    """
    a, b = np.asarray(forward, np.float64), np.asarray(reverse, np.float64)
    for name, w in (("forward", a), ("reverse", b)):
        if not np.isfinite(w).any() or np.isnan(w).any() or np.isneginf(w).any():
            raise NumericalError(
                f"Bennett's estimate needs works of both sides, found {int(np.isfinite(w).sum())} "
                f"finite {name} ones of {len(w)}"
            )
    m = np.log(len(a) / len(b))

    def unbalance(df: float) -> float:
        return float(expit(-(m + a - df)).sum() - expit(-(-m + b + df)).sum())

    finite = np.concatenate([a[np.isfinite(a)], -b[np.isfinite(b)]])
    low, high = finite.min() - abs(m) - 1.0, finite.max() + abs(m) + 1.0
    step = 1.0
    while unbalance(low) > 0 or unbalance(high) < 0:
        low, high, step = low - step, high + step, 2 * step
        if step > WIDEST:
            raise NumericalError("Bennett's equation has no root: the works are of no use")
    df = float(brentq(unbalance, low, high, xtol=TOLERANCE, rtol=8 * np.finfo(float).eps))
    parts = []
    for f, n in zip(
        (expit(-(m + a - df)), expit(-(-m + b + df))),
        effective or (float(len(a)), float(len(b))),
        strict=True,
    ):
        mean = f.mean()
        parts.append(f.var() / (n * mean**2) if mean > 0 else np.inf)
    return Estimate(df, float(np.sqrt(sum(parts))))
