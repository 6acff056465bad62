"""What frames of atoms or beads look like: forces, bonds, overlaps, repeated frames.

    |F|_tb = |F_tb|,   net_t = |sum_b F_tb|,   stretch_tk = d_tk / median over a sample of d_k

Frames pass by in blocks; what is kept are some numbers per frame. Which value is good is for those
who ask (`mlff check`).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field

import numpy as np

PAIRS = 100_000_000  # distances of beads that are looked at in all; more frames are sampled
PAIRS_AT_ONCE = 4_000_000


@dataclass
class ForceStatistics:
    """Sums over beads, and what stands out of every frame.

    Attributes:
        n: beads seen.
        total: sum of |F|, kcal/mol/angstrom.
        square: sum of |F|^2.
        largest: per frame, the largest |F|.
        bead: per frame, the bead that has it.
        net: per frame, the length of the sum of forces.
    """

    n: int = 0
    total: float = 0.0
    square: float = 0.0
    largest: list[np.ndarray] = field(default_factory=list)
    bead: list[np.ndarray] = field(default_factory=list)
    net: list[np.ndarray] = field(default_factory=list)

    def add(self, forces: np.ndarray, real: np.ndarray) -> None:
        """Take in some frames.

        Args:
            forces: (T, n, 3) in kcal/mol/angstrom.
            real: (T, n) bool, False for padding.
        """
        f = np.where(real[..., None], forces, 0.0).astype("float64")
        size = np.sqrt((f * f).sum(-1))  # [T, n]
        self.n += int(real.sum())
        self.total += float(size.sum())
        self.square += float((size * size).sum())
        self.largest.append(size.max(1))
        self.bead.append(size.argmax(1))
        self.net.append(np.sqrt((f.sum(1) ** 2).sum(-1)))

    @property
    def mean(self) -> float:
        """Mean |F|."""
        return self.total / max(1, self.n)

    @property
    def rms_component(self) -> float:
        """Root mean square of a component of F."""
        return math.sqrt(self.square / max(1, 3 * self.n))


@dataclass(frozen=True)
class Worst:
    """The frame in which something is at its worst.

    Attributes:
        value: how bad it is.
        row: the frame.
        beads: which beads, numbered from 0.
        count: frames beyond the limit that was asked for.
    """

    value: float
    row: int
    beads: tuple[int, int]
    count: int


def bond_lengths(positions: np.ndarray, bonds: np.ndarray) -> np.ndarray:
    """Lengths of bonds, (T, b) in the unit of positions (T, n, 3); bonds (b, 2)."""
    r = positions.astype("float64")
    d: np.ndarray = np.linalg.norm(r[:, bonds[:, 1]] - r[:, bonds[:, 0]], axis=-1)
    return d


class Bonds:
    """Bonds that are much longer or shorter than they usually are.

    Args:
        bonds: (b, 2).
        usual: (b,) usual lengths in angstrom.
        limit: factor by which a length may leave the usual one.
    """

    def __init__(self, bonds: np.ndarray, usual: np.ndarray, limit: float) -> None:
        self.bonds, self.usual, self.limit = bonds, usual, limit
        self.worst: Worst | None = None
        self._count = 0

    def add(self, positions: np.ndarray, rows: np.ndarray) -> None:
        """Take in frames (T, n, 3); `rows` are their numbers."""
        stretch = bond_lengths(positions, self.bonds) / self.usual
        factor = np.maximum(stretch, 1.0 / np.maximum(stretch, 1e-12))  # [T, b]
        self._count += int((factor > self.limit).any(1).sum())
        t, k = np.unravel_index(factor.argmax(), factor.shape)
        worst = float(stretch[t, k])
        if self.worst is None or factor[t, k] > max(self.worst.value, 1 / self.worst.value):
            i, j = self.bonds[k]
            self.worst = Worst(worst, int(rows[t]), (int(i), int(j)), 0)
        self.worst = Worst(self.worst.value, self.worst.row, self.worst.beads, self._count)


class Overlaps:
    """The closest pair of beads that are not bonded.

    Args:
        pairs: (p, 2) of beads.
        limit: frames with a distance below it are counted, angstrom.
    """

    def __init__(self, pairs: np.ndarray, limit: float) -> None:
        self.pairs, self.limit = pairs, limit
        self.worst: Worst | None = None
        self._count = 0

    def add(self, positions: np.ndarray, rows: np.ndarray) -> None:
        """Take in frames (T, n, 3); `rows` are their numbers."""
        step = max(1, PAIRS_AT_ONCE // max(1, len(self.pairs)))
        for start in range(0, len(rows), step):
            d = bond_lengths(positions[start : start + step], self.pairs)
            self._count += int((d < self.limit).any(1).sum())
            t, k = np.unravel_index(d.argmin(), d.shape)
            if self.worst is None or d[t, k] < self.worst.value:
                i, j = self.pairs[k]
                self.worst = Worst(float(d[t, k]), int(rows[start + t]), (int(i), int(j)), 0)
        if self.worst is not None:
            self.worst = Worst(self.worst.value, self.worst.row, self.worst.beads, self._count)


def unbonded_pairs(n_beads: int, bonds: np.ndarray) -> np.ndarray:
    """All pairs of beads without a bond between them, (p, 2)."""
    bonded = np.zeros((n_beads, n_beads), dtype=bool)
    bonded[bonds[:, 0], bonds[:, 1]] = bonded[bonds[:, 1], bonds[:, 0]] = True
    i, j = np.triu_indices(n_beads, 1)
    free = ~bonded[i, j]
    return np.stack([i[free], j[free]], axis=1)


def sampled(rows: np.ndarray, n_pairs: int) -> np.ndarray:
    """Whether each of the rows belongs to the even sample that pair distances are affordable of."""
    every = max(1, math.ceil(len(rows) * max(1, n_pairs) / PAIRS))
    chosen: np.ndarray = np.arange(len(rows)) % every == 0
    return chosen


def fingerprints(positions: np.ndarray) -> list[bytes]:
    """A digest of every frame's bytes: equal frames have equal ones."""
    return [hashlib.blake2b(x.tobytes(), digest_size=8).digest() for x in positions]


def repeats(digests: list[bytes]) -> tuple[int, tuple[int, int] | None]:
    """How many frames repeat an earlier one, and the first such pair of rows."""
    seen: dict[bytes, int] = {}
    count, first = 0, None
    for row, digest in enumerate(digests):
        if digest in seen:
            count += 1
            first = first or (seen[digest], row)
        else:
            seen[digest] = row
    return count, first
