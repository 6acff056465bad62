"""Atoms on isotropic springs: everything about their coarse-graining is known in closed form.

    U = 1/2 sum_c x_c^T H x_c,   x_c = C y_c with y_c ~ N(0, kT (C^T H C)^-1),   f = -H x
    PMF of R = M x = A y:   -dU/dR_c = -P R_c,   P = (A (C^T H C)^-1 A^T)^-1        A = M C

C joins atoms whose distance vector is constrained (here to zero); without constraints C = 1. The
forces f are those of the springs, as OpenMM reports them: without the constraint forces. What W f
scatters about the mean force at given R is known too: x given R is Gaussian.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlff_cli.coarse.forces.force_map import GAS_CONSTANT


@dataclass(frozen=True)
class Oscillators:
    """N atoms on springs; `h` (N, N) kcal/mol/A^2, `mapping` (n, N), `groups` (N,)."""

    h: np.ndarray
    mapping: np.ndarray
    groups: np.ndarray
    temperature: float = 300.0

    @property
    def kt(self) -> float:
        return GAS_CONSTANT * self.temperature

    @property
    def c(self) -> np.ndarray:
        return np.eye(self.groups.max() + 1)[self.groups]  # (N, g)

    @property
    def covariance(self) -> np.ndarray:
        """Of the atoms, per component, A^2; of relative positions where nothing holds the whole."""
        inner = np.linalg.pinv(self.c.T @ self.h @ self.c, rcond=1e-10, hermitian=True)
        return self.kt * self.c @ inner @ self.c.T

    @property
    def gram(self) -> np.ndarray:
        """The exact G (g, g) of infinitely many frames."""
        return self.c.T @ self.h @ self.covariance @ self.h @ self.c

    def pmf_hessian(self, sigma: float = 0.0) -> np.ndarray:
        """P (n, n) of the beads, with noise of width sigma on them."""
        m = self.mapping
        p = self.kt * np.linalg.inv(m @ self.covariance @ m.T + sigma**2 * np.eye(len(m)))
        if np.abs(self.h.sum(axis=1)).max() < 1e-9:  # free to move: in the limit of a weak tether
            p -= np.outer(p.sum(axis=1), p.sum(axis=0)) / p.sum()
        return p

    def scatter(self, w: np.ndarray) -> np.ndarray:
        """Covariance (n, n) of a component of W f at given beads."""
        s, m = self.covariance, self.mapping
        given = s - s @ m.T @ self.pmf_hessian() @ m @ s / self.kt
        return w @ self.h @ given @ self.h @ w.T

    def sample(self, n_frames: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions and forces (T, N, 3) of independent frames."""
        value, vector = np.linalg.eigh(self.covariance)
        root = vector * np.sqrt(np.clip(value, 0.0, None))
        normal = np.random.default_rng(seed).normal(size=(n_frames, len(root), 3))
        x = np.einsum("ij,tjc->tic", root, normal)
        return x, -np.einsum("ij,tjc->tic", self.h, x)


def chain(
    n_atoms: int = 10,
    n_beads: int = 3,
    *,
    groups: np.ndarray | None = None,
    tether: float = 3.0,
    seed: int = 1,
) -> Oscillators:
    """Atoms on a random web of springs, beads at the centres of mass of some of them.

    Bead I takes atoms of [3I, 3I + 3): the first with weight 2/3, the second with 1/3, the third
    not. `tether` holds every atom to the origin, 0 leaves a web whose forces add up to zero.
    """
    rng = np.random.default_rng(seed)
    k = np.triu(rng.uniform(1.0, 40.0, (n_atoms, n_atoms)) * (rng.random((n_atoms,) * 2) < 0.5), 1)
    k[np.arange(n_atoms - 1), np.arange(1, n_atoms)] += 20.0
    k += k.T
    h = np.diag(k.sum(axis=1) + tether * rng.uniform(0.5, 2.0, n_atoms)) - k
    if tether == 0.0:
        h = np.diag(k.sum(axis=1)) - k
    mapping = np.zeros((n_beads, n_atoms))
    for bead in range(n_beads):
        mapping[bead, [3 * bead, 3 * bead + 1]] = 2 / 3, 1 / 3
    return Oscillators(h, mapping, np.arange(n_atoms) if groups is None else groups)
