"""Noise on beads, the same for a frame wherever and with whichever others it is drawn.

    eps_t ~ N(0, 1)^(n x 3),   drawn from Philox with key = seed and counter = t

The generator is counter-based (Salmon et al., SC 2011): a frame's numbers depend on the seed and
its row alone, so that pieces and workers of any size change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

SPACING = 1 << 64  # of counters between rows: no frame draws so many numbers


def bead_noise(seed: int, rows: Iterable[int], n_beads: int) -> np.ndarray:
    """Standard normal numbers eps (T, n_beads, 3) of rows of a set."""
    drawn = [
        np.random.Generator(np.random.Philox(key=seed, counter=int(t) * SPACING)).standard_normal(
            (n_beads, 3)
        )
        for t in rows
    ]
    return np.array(drawn).reshape(-1, n_beads, 3)
