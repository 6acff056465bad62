"""Whether chains of beads are still chains: positions finite, bonds whole, no bead inside another.

    bond      1/2 r0 <= r <= max(3/2 r0, r0 + 1 angstrom)      r0: the longest at the start
    others    r >= min(2 angstrom, 1/2 of the shortest at the start)

A model that never saw such a frame says nothing true about it, and what follows from it is no
sample of anything: the run stops there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from mlff_cli.core.errors import DataError

STRETCH, ROOM = 1.5, 1.0  # of a bond: factor, and angstrom that any bond may gain
SHRINK = 0.5  # of a bond, and of the shortest distance of other beads
NEAREST = 2.0  # angstrom: what is further apart never overlaps
COINCIDENT = 0.2  # angstrom: no frame of a molecule has beads so close
_SMALL = 64  # beads, from which on a search tree pays
_AT_ONCE = 1 << 20  # distances held


@dataclass(frozen=True)
class Finding:
    """What is wrong with one replica.

    Attributes:
        replica: which.
        what: in words.
    """

    replica: int
    what: str


class Guard:
    """Limits for a molecule, taken from where it starts.

    Args:
        bonds: (b, 2) bonded beads.
        start: (B, n, 3) angstrom, frames that the run starts from.
        labels: (n,) what beads are called.

    Raises:
        DataError: a start is not finite, or two of its beads coincide.
    """

    def __init__(self, bonds: np.ndarray, start: np.ndarray, labels: Sequence[str]) -> None:
        self._labels, self._bonds, n = list(labels), np.asarray(bonds), start.shape[1]
        if not np.isfinite(start).all():
            raise DataError(
                f"a start must be finite, found NaN or infinity at bead "
                f"{self._labels[int(np.argwhere(~np.isfinite(start))[0, 1])]}",
                remedy="choose another frame",
            )
        i, j = self._bonds.T
        r0 = np.linalg.norm(start[:, j] - start[:, i], axis=-1)
        r0 = r0.max(0) if len(r0) else r0
        self._longest, self._shortest = np.maximum(STRETCH * r0, r0 + ROOM), SHRINK * r0
        self._bonded = np.eye(n, dtype=bool)
        self._bonded[i, j] = self._bonded[j, i] = True
        least, _, a, b = self._nearest(start, NEAREST / SHRINK)
        self.nearest = SHRINK * least
        if min(least, float(r0.min(initial=np.inf))) < COINCIDENT:
            raise DataError(
                f"beads of a start lie at least {COINCIDENT:g} angstrom apart, found "
                + (
                    f"{self._labels[a]} and {self._labels[b]} at {least:.3f}"
                    if least < COINCIDENT
                    else f"a bond of {r0.min():.3f}"
                ),
                remedy="choose another frame, or mend the structure",
            )

    def check(self, x: np.ndarray) -> Finding | None:
        """The first replica of x (B, n, 3) in angstrom that is broken, or None."""
        finite = np.isfinite(x).all((1, 2))
        if not finite.all():
            k = int(np.argmin(finite))
            bead = int(np.argmin(np.isfinite(x[k]).all(1)))
            return Finding(k, f"the position of {self._labels[bead]} is NaN or infinite")
        i, j = self._bonds.T
        r = np.linalg.norm(x[:, j] - x[:, i], axis=-1)  # [B, b]
        for wrong, told in (
            (r > self._longest, "has broken: {0:.2f} angstrom long, at most {1:.2f}"),
            (r < self._shortest, "has collapsed: {0:.2f} angstrom long, at least {2:.2f}"),
        ):
            if wrong.any():
                k, b = map(int, np.argwhere(wrong)[0])
                ends = f"{self._labels[i[b]]} - {self._labels[j[b]]}"
                text = told.format(r[k, b], self._longest[b], self._shortest[b])
                return Finding(k, f"the bond {ends} {text}")
        least, k, a, b = self._nearest(x, self.nearest)
        if least < self.nearest:
            names = f"{self._labels[a]} and {self._labels[b]}"
            return Finding(
                k, f"{names} overlap: {least:.2f} angstrom apart, at least {self.nearest:.2f}"
            )
        return None

    def _nearest(self, x: np.ndarray, reach: float) -> tuple[float, int, int, int]:
        """The shortest distance of beads without a bond, its frame and beads; `reach` at most."""
        best = (reach, -1, -1, -1)
        n = x.shape[1]
        if n > _SMALL:
            return min(best, self._near_pairs(x, reach))
        step = max(1, _AT_ONCE // (n * n))
        for first in range(0, len(x), step):
            best = min(best, self._all_pairs(x[first : first + step], first))
        return best

    def _all_pairs(self, x: np.ndarray, first: int) -> tuple[float, int, int, int]:
        square = ((x[:, :, None] - x[:, None]) ** 2).sum(-1)  # [b, n, n]
        square[:, self._bonded] = np.inf
        k, i, j = np.unravel_index(int(np.argmin(square)), square.shape)
        return float(np.sqrt(square[k, i, j])), int(k) + first, int(i), int(j)

    def _near_pairs(self, x: np.ndarray, reach: float) -> tuple[float, int, int, int]:
        best = (np.inf, -1, -1, -1)
        for k, frame in enumerate(x):
            i, j = cKDTree(frame).query_pairs(reach, output_type="ndarray").T
            keep = ~self._bonded[i, j]
            i, j = i[keep], j[keep]
            if len(i):
                r = np.linalg.norm(frame[j] - frame[i], axis=-1)
                m = int(np.argmin(r))
                best = min(best, (float(r[m]), k, int(i[m]), int(j[m])))
        return best
