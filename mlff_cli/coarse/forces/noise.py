"""Noise on mapped positions, and the force that belongs to it.

    R = M r + sigma eps,   F = W f + (W M^T - 1) kT eps / sigma,   eps ~ N(0, 1)

The noise of a frame depends on the seed, the trajectory and the row alone: it is the same in
whatever pieces, order or processes frames are read. Numbers are drawn from Philox, a counter-based
generator (Salmon et al., SC 2011).
"""

from __future__ import annotations

import numpy as np

from mlff_cli.coarse.forces.force_map import GAS_CONSTANT, ForceMap
from mlff_cli.core.errors import UsageError


def frame_noise(seed: int, source: int, rows: np.ndarray, n_beads: int) -> np.ndarray:
    """Standard normal eps (T, n, 3).

    Args:
        seed: of the run, 0 or more.
        source: number of the trajectory, 0 or more.
        rows: (T,) rows of the frames in it.
        n_beads: n.
    """
    eps = np.empty((len(rows), n_beads, 3))
    for t, row in enumerate(rows):
        # the row is a word of the counter that a frame's own numbers never reach
        philox = np.random.Philox(key=[seed, source], counter=[0, int(row), 0, 0])
        np.random.Generator(philox).standard_normal(out=eps[t])
    return eps


def add_noise(
    force_map: ForceMap, positions: np.ndarray, forces: np.ndarray, eps: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Positions R and forces F (T, n, 3) float64 with noise.

    Args:
        force_map: a noise map.
        positions: M r (T, n, 3) in angstrom.
        forces: W f (T, n, 3) in kcal/mol/angstrom.
        eps: (T, n, 3), standard normal.

    Raises:
        UsageError: the map was not made for noise.
    """
    if force_map.sigma is None or force_map.temperature is None:
        raise UsageError(f"a {force_map.method} map has no noise", remedy="make a noise map")
    kick = GAS_CONSTANT * force_map.temperature / force_map.sigma  # kT / sigma
    return (
        positions + force_map.sigma * eps,
        forces + kick * np.einsum("ij,tjc->tic", force_map.excess, eps),
    )
