"""Distances, angles and dihedrals of bead coordinates.

    r     = |x_j - x_i|                                                  angstrom, [0, inf)
    theta = atan2(|u x v|, u . v),        u = x_i - x_j, v = x_k - x_j   radian, [0, pi]
    phi   = atan2(|b| a . (b x c), (a x b) . (b x c))                    radian, [-pi, pi]
            a = x_j - x_i, b = x_k - x_j, c = x_l - x_k

atan2 keeps its precision at 0 and pi, where acos loses half of its digits. phi is the IUPAC
dihedral: 0 is cis, clockwise is positive.
"""

from __future__ import annotations

import numpy as np


def distances(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """R (T, m) in angstrom of coordinates x (T, n, 3) and pairs of beads (m, 2)."""
    d = x[:, rows[:, 1]] - x[:, rows[:, 0]]  # (T, m, 3)
    r: np.ndarray = np.sqrt(_dot(d, d))
    return r


def angles(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Theta (T, m) in radian of coordinates x (T, n, 3) and triples of beads (m, 3)."""
    u = x[:, rows[:, 0]] - x[:, rows[:, 1]]
    v = x[:, rows[:, 2]] - x[:, rows[:, 1]]
    w = np.cross(u, v)
    theta: np.ndarray = np.arctan2(np.sqrt(_dot(w, w)), _dot(u, v))
    return theta


def dihedrals(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Phi (T, m) in radian of coordinates x (T, n, 3) and quadruples of beads (m, 4)."""
    a, b, c = (x[:, rows[:, i + 1]] - x[:, rows[:, i]] for i in range(3))
    n, m = np.cross(a, b), np.cross(b, c)
    phi: np.ndarray = np.arctan2(np.sqrt(_dot(b, b)) * _dot(a, m), _dot(n, m))
    return phi


def _dot(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    product: np.ndarray = np.einsum("tmx,tmx->tm", u, v)
    return product
