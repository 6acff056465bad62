"""Root mean square deviation after superposition, and the radius of gyration.

    RMSD^2 = min_Q 1/n sum_i |x_i - Q y_i|^2 = (|x|^2 + |y|^2 - 2 (s_1 + s_2 + d s_3)) / n
    Rg^2   = sum_i m_i |x_i - x_m|^2 / sum_i m_i

x and y relative to their centres, s the singular values of x^T y, largest first, d the sign of its
determinant (W. Kabsch, Acta Cryst. A 32, 922, 1976): Q is a rotation, mirror images stay apart.
"""

from __future__ import annotations

import numpy as np


def rmsd(x: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """RMSD (T,) of coordinates (T, n, 3) from a structure (n, 3), in their unit."""
    a = np.asarray(x, np.float64)
    a = a - a.mean(axis=1, keepdims=True)
    b = np.asarray(reference, np.float64)
    b = b - b.mean(axis=0)
    h = np.einsum("tni,nj->tij", a, b)
    s = np.linalg.svd(h, compute_uv=False)  # (T, 3)
    best = s[:, 0] + s[:, 1] + np.sign(np.linalg.det(h)) * s[:, 2]
    square = ((a * a).sum(axis=(1, 2)) + (b * b).sum() - 2.0 * best) / len(b)
    return np.asarray(np.sqrt(np.maximum(square, 0.0)))


def radius_of_gyration(x: np.ndarray, masses: np.ndarray | None = None) -> np.ndarray:
    """Rg (T,) of coordinates (T, n, 3), in their unit; equal masses unless told."""
    a = np.asarray(x, np.float64)
    m = np.ones(a.shape[1]) if masses is None else np.asarray(masses, np.float64)
    w = m / m.sum()
    d = a - np.einsum("n,tni->ti", w, a)[:, None]
    return np.asarray(np.sqrt(np.einsum("n,tni,tni->t", w, d, d)))
