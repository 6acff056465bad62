"""Free chains: bonds, angles and dihedrals drawn from their exact distributions.

Without forces between beads that share no term, internal coordinates are independent:

    p(r) = r^2 exp(-U/kT)/Z,   p(theta) = sin(theta) exp(-U/kT)/Z,   p(phi) = exp(-U/kT)/Z

so that chains of any length are drawn without a simulation, and inversion is exact.
"""

from collections.abc import Callable

import numpy as np

from mlff_cli.coarse.priors.distributions import TERM_KINDS, Histogram

KT = 0.596  # kcal/mol, 300 K
Energy = Callable[[np.ndarray], np.ndarray]


def bond_energy(r: np.ndarray) -> np.ndarray:
    return 0.5 * 120.0 * (r - 3.8) ** 2


def angle_energy(t: np.ndarray) -> np.ndarray:
    """Two valleys, near 85 and 135 degrees."""
    return 6.0 * np.cos(t) + 4.0 * np.cos(2 * t) - 1.0 * np.sin(t) + 0.6 * np.sin(2 * t)


def dihedral_energy(p: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.cos(p - 0.5)) + 0.9 * (1 + np.cos(2 * p + 1.0)) + 0.3 * (1 + np.cos(3 * p))


def draw(kind: str, u: Energy, n: int | tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Values of p = J exp(-u/kT)/Z, by inverting its integral on a fine grid."""
    k = TERM_KINDS[kind]
    edges = np.linspace(k.low, k.high, 400_001)
    energy = u(0.5 * (edges[1:] + edges[:-1]))
    p = np.diff(k.moment(edges)) * np.exp(-(energy - energy.min()) / KT)
    total = np.concatenate([[0.0], np.cumsum(p)]) / p.sum()
    return np.interp(np.random.default_rng(seed).random(n), total, edges)


def histogram(kind: str, values: np.ndarray) -> Histogram:
    counts, _ = np.histogram(values, TERM_KINDS[kind].edges)
    return Histogram(TERM_KINDS[kind], ("*",), counts)


def build(r: np.ndarray, theta: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """Chains (T, n, 3) of bonds (T, n-1), angles (T, n-2) and dihedrals (T, n-3)."""
    T, n = r.shape[0], r.shape[1] + 1
    x = np.zeros((T, n, 3))
    x[:, 1, 0] = r[:, 0]
    for i in range(2, n):
        b = x[:, i - 1] - x[:, i - 2]
        b /= np.linalg.norm(b, axis=1, keepdims=True)
        plane = np.tile([0.0, 0.0, 1.0], (T, 1))
        if i > 2:
            plane = np.cross(x[:, i - 2] - x[:, i - 3], b)
            plane /= np.linalg.norm(plane, axis=1, keepdims=True)
        side = np.cross(plane, b)
        t = theta[:, i - 2, None]
        p = phi[:, i - 3, None] if i > 2 else np.zeros((T, 1))
        step = -np.cos(t) * b + np.sin(t) * (np.cos(p) * side + np.sin(p) * plane)
        x[:, i] = x[:, i - 1] + r[:, i - 1, None] * step
    return x


def free_chains(
    n_frames: int,
    n_beads: int,
    seed: int = 0,
    bond: Energy = bond_energy,
    angle: Energy = angle_energy,
    dihedral: Energy = dihedral_energy,
) -> np.ndarray:
    """Chains (n_frames, n_beads, 3) in angstrom."""
    return build(
        draw("bond", bond, (n_frames, n_beads - 1), seed),
        draw("angle", angle, (n_frames, n_beads - 2), seed + 1),
        draw("dihedral", dihedral, (n_frames, max(n_beads - 3, 0)), seed + 2),
    )
