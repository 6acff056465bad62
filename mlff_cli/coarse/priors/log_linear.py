"""Maximum likelihood of a density whose logarithm is linear in its parameters.

    p_b = m_b exp(x_b . c) / Z,      m_b: integral of the Jacobian over bin b,   U(q) = -kT x(q) . c
    L(c) = sum_b n_b ln p_b - c^T P c / 2
    dL/dc = X^T (n - N p) - P c,     -d2L/dc2 = N (X^T diag(p) X - (X^T p)(X^T p)^T) + P

Harmonic, Fourier and cosine terms and cubic B-splines are all of this form. L is concave, so that
Newton steps find its one maximum. Against least squares of the inverted histogram: empty bins need
no rule, counts carry their own weight, and U cannot dive where no data are, because p is normalised
over the whole domain (A. R. Barron, C.-H. Sheu, Ann. Stat. 19, 1347 (1991); for P: P. H. C. Eilers,
B. D. Marx, Stat. Sci. 11, 89 (1996)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlff_cli.core.errors import NumericalError

STEPS = 200
TOLERANCE = 1e-13  # nats per sample that one more step would gain
_JITTER = 1e-12  # of the largest curvature; keeps directions that change nothing where they are
_SHORTEST = 1e-8  # part of a Newton step


@dataclass(frozen=True)
class Fit:
    """A maximum.

    Attributes:
        c: (k,) parameters.
        likelihood: sum_b n_b ln p_b in nats, without the penalty.
        freedom: effective number of parameters, trace(H (H + P)^-1).
    """

    c: np.ndarray
    likelihood: float
    freedom: float


def log_linear(
    counts: np.ndarray,
    measure: np.ndarray,
    x: np.ndarray,
    penalty: np.ndarray | None = None,
    start: np.ndarray | None = None,
) -> Fit:
    """Maximise L.

    Args:
        counts: (B,) samples in the bins, may be fractional.
        measure: (B,) integral of the Jacobian, positive.
        x: (B, k) features, best scaled to about 1.
        penalty: (k, k) P, positive semidefinite; none by default.
        start: (k,) where to begin; zeros by default.

    Raises:
        NumericalError: no convergence, which means that the data determine no maximum.
    """
    k = x.shape[1]
    penalty = np.zeros((k, k)) if penalty is None else penalty
    n = float(counts.sum())
    offset = np.log(measure)
    c = np.zeros(k) if start is None else np.array(start, dtype=np.float64)
    log_p = _log_density(offset + x @ c)
    for _ in range(STEPS):
        p = np.exp(log_p)
        gradient = x.T @ (counts - n * p) - penalty @ c
        centred = x - p @ x
        h = n * (centred.T * p) @ centred
        full = h + penalty
        full[np.diag_indices(k)] += _JITTER * max(float(np.abs(full).max()), 1.0)
        step = np.linalg.solve(full, gradient)
        gain = 0.5 * float(gradient @ step)
        if not np.isfinite(gain):
            break
        if gain <= TOLERANCE * max(n, 1.0):
            freedom = float(np.trace(np.linalg.solve(full, h)))
            return Fit(c, float(counts @ log_p), freedom)
        value = float(counts @ log_p - 0.5 * c @ penalty @ c)
        scale = 1.0
        while scale > _SHORTEST:
            trial = c + scale * step
            tried = _log_density(offset + x @ trial)
            if counts @ tried - 0.5 * trial @ penalty @ trial >= value + 0.1 * scale * gain:
                break
            scale *= 0.5
        c, log_p = trial, tried
    raise NumericalError(
        f"the fit of a distribution of {n:.0f} samples does not converge",
        remedy="use more frames, or check the coordinates with `mlff check`",
    )


def _log_density(exponent: np.ndarray) -> np.ndarray:
    """Ln p (B,) of an exponent up to a constant."""
    shifted = exponent - exponent.max()
    density: np.ndarray = shifted - np.log(np.exp(shifted).sum())
    return density
