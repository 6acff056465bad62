"""How well a map f carries one ensemble into another, from its works alone.

    w_F(x) = u_t(f(x))     - u_s(x) - ln|det J_f(x)|          x ~ p_s,   u = U / (k_B T)
    w_R(y) = u_s(f^-1(y))  - u_t(y) - ln|det J_f^-1(y)|       y ~ p_t

w is the reduced (generalised) work of targeted free-energy perturbation (C. Jarzynski, Phys. Rev. E
65, 046122, 2002), -w the logarithm of a sample's weight in the other ensemble. With f the identity
it is the work of the naive swap. dF = -ln(Z_t/Z_s) is the reduced free-energy difference:

    <w_F> = dF + KL(f p_s || p_t),   <w_R> = -dF + KL(f^-1 p_t || p_s)
    excess = <w_F> + <w_R>                            nats, 0 for a perfect map: dF cancels
    ESS = (sum e^-w)^2 / (n sum e^-2w)                of each direction, 1/n to 1
    acceptance = <min(1, e^-(w_F + w_R))>             over independent pairs, of a replica-exchange
                                                      swap x -> f(x), y -> f^-1(y)

Where w_F is normal, so is w_R with the same variance s^2 (G. E. Crooks, Phys. Rev. E 60, 2721,
1999), ESS = e^-s^2, excess = s^2 and acceptance = erfc(s/2): `log_normal_acceptance`.

A work of +inf is a sample without weight: a conformation that the other ensemble does not have.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import erfc, logsumexp

from mlff_cli.core.errors import NumericalError


def forward_work(
    energy: np.ndarray,
    moved_energy: np.ndarray,
    log_det: np.ndarray,
    beta: float,
    moved_beta: float,
) -> np.ndarray:
    """Reduced work (n,) of carrying samples to where the other inverse temperature rules.

    Args:
        energy: (n,) U(x) of the samples, kJ/mol.
        moved_energy: (n,) U(f(x)), kJ/mol; +inf or NaN where it could not be evaluated.
        log_det: (n,) ln|det J_f(x)|.
        beta: of the samples, mol/kJ.
        moved_beta: of the other ensemble, mol/kJ.

    Returns:
        w; +inf where the moved energy or the log-det is not finite.

    Raises:
        NumericalError: the energy of a sample itself is not finite.
    """
    energy, moved, log_det = (np.asarray(v, np.float64) for v in (energy, moved_energy, log_det))
    if not np.isfinite(energy).all():
        k = int(np.flatnonzero(~np.isfinite(energy))[0])
        raise NumericalError(
            f"samples need finite energies, found {energy[k]} of sample {k}",
            remedy="take the force field that the samples were made with",
        )
    good = np.isfinite(moved) & np.isfinite(log_det)
    work = np.full(len(energy), np.inf)
    work[good] = moved_beta * moved[good] - beta * energy[good] - log_det[good]
    return work


def normalised_weights(work: np.ndarray) -> np.ndarray:
    """e^-w over its sum, (n,).

    Raises:
        NumericalError: no sample has a weight.
    """
    w = _checked(work)
    return np.asarray(np.exp(-w - logsumexp(-w)))


def effective_share(work: np.ndarray) -> float:
    """ESS / n, 1/n to 1; 0 where no sample has a weight."""
    w = _checked(work, empty=True)
    if not np.isfinite(w).any():
        return 0.0
    return float(np.exp(2 * logsumexp(-w) - logsumexp(-2 * w)) / len(w))


def log_normal_acceptance(share: float) -> float:
    """Acceptance erfc(sqrt(-ln ESS) / 2) of log-normal weights with this share ESS.

    >>> round(log_normal_acceptance(0.9), 4)
    0.8185
    """
    return float(erfc(np.sqrt(max(0.0, -np.log(share))) / 2)) if share > 0 else 0.0


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error."""

    value: float
    error: float


def acceptance(
    forward: np.ndarray, reverse: np.ndarray, effective: tuple[float, float] | None = None
) -> Estimate:
    """Share of swaps that are done, over all pairs of a sample of one side and one of the other.

    The error is that of a two-sample U-statistic: the variances of the projections on either side,
    each over its number of independent samples (W. Hoeffding, Ann. Math. Stat. 19, 293, 1948).

    Args:
        forward: (n,) w_F.
        reverse: (m,) w_R.
        effective: independent samples among n and m; None: all.
    """
    a, b = _checked(forward, empty=True), _checked(reverse, empty=True)
    n, m = effective or (float(len(a)), float(len(b)))
    by_forward, by_reverse = _met(a, b), _met(b, a)
    variance = by_forward.var() / n + by_reverse.var() / m
    return Estimate(float(by_forward.mean()), float(np.sqrt(variance)))


def excess_nats(
    forward: np.ndarray, reverse: np.ndarray, effective: tuple[float, float] | None = None
) -> Estimate:
    """<w_F> + <w_R> over ALL samples: KL of both directions, infinite where one work is.

    Args:
        forward: (n,) w_F.
        reverse: (m,) w_R.
        effective: independent samples among n and m; None: all.
    """
    a, b = _checked(forward, empty=True), _checked(reverse, empty=True)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return Estimate(float("inf"), float("inf"))
    n, m = effective or (float(len(a)), float(len(b)))
    error = np.sqrt(a.var() / n + b.var() / m)
    return Estimate(float(a.mean() + b.mean()), float(error))


def _met(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """<min(1, e^-(a_i + b_j))>_j of every i, in the order of sorting instead of all pairs."""
    b = np.sort(b)
    tail = np.append(np.logaddexp.accumulate(-b[::-1])[::-1], -np.inf)  # ln sum_(k >= j) e^-b_k
    first = np.searchsorted(b, -a)  # from here on a_i + b_j >= 0
    with np.errstate(invalid="ignore"):
        above = np.exp(np.where(np.isposinf(a), -np.inf, tail[first] - a))
    return np.asarray((first + above) / len(b))


def _checked(work: np.ndarray, *, empty: bool = False) -> np.ndarray:
    w = np.asarray(work, np.float64)
    if w.ndim != 1 or not len(w) or np.isnan(w).any() or np.isneginf(w).any():
        raise NumericalError(
            f"works are a row of numbers or +inf, found shape {w.shape}"
            + (f" with {int((np.isnan(w) | np.isneginf(w)).sum())} NaN or -inf" if w.size else "")
        )
    if not empty and not np.isfinite(w).any():
        raise NumericalError(
            f"none of {len(w)} samples has a weight: every work is infinite",
            remedy="the map leads where the energy is not finite; train it, or start from a map "
            "that does not",
        )
    return w
