"""What frames of atoms or beads look like: forces, bonds, overlaps, repeated frames.

    |F|_tb = |F_tb|,   net_t = |sum_b F_tb|,   d_tk beside the median of d_k over a sample

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


@dataclass(frozen=True)
class BondLimits:
    """How far a bond's length d may leave its usual one d0.

    A stiff bond is broken where d / d0 or d0 / d is above `stiff`. A soft one is odd where either
    is above `soft`, and broken where it is `jump` longer besides, or shorter than `contact`.

    Attributes:
        stiff: factor.
        soft: factor.
        jump: angstrom.
        contact: angstrom.
    """

    stiff: float
    soft: float
    jump: float
    contact: float


@dataclass(frozen=True)
class Stretch:
    """A bond far from its usual length.

    Attributes:
        length: in angstrom.
        usual: in angstrom.
        row: the frame.
        beads: numbered from 0.
    """

    length: float
    usual: float
    row: int
    beads: tuple[int, int]

    @property
    def factor(self) -> float:
        """How many times longer, or shorter, it is."""
        ratio = max(self.length, 1e-12) / self.usual
        return max(ratio, 1.0 / ratio)


class Bonds:
    """Bonds that are much longer or shorter than they usually are.

    Args:
        bonds: (b, 2).
        usual: (b,) usual lengths in angstrom, above 0.
        stiff: (b,) bool, which of them no thermal motion stretches.
        limits: what is odd, and what is broken.

    Attributes:
        worst: the bond farthest from its usual length; None before frames were seen.
        broken: the farthest of those that are broken, or None.
        n_broken: frames with a broken bond.
        n_odd: frames with an odd bond, and none that is broken.
    """

    def __init__(
        self, bonds: np.ndarray, usual: np.ndarray, stiff: np.ndarray, limits: BondLimits
    ) -> None:
        self.bonds, self.usual = bonds, usual
        self.worst: Stretch | None = None
        self.broken: Stretch | None = None
        self.n_broken = self.n_odd = 0
        self._stiff, self._limits = stiff, limits

    def add(self, positions: np.ndarray, rows: np.ndarray) -> None:
        """Take in frames (T, n, 3); `rows` are their numbers."""
        d, limits = bond_lengths(positions, self.bonds), self._limits  # [T, b]
        ratio = np.maximum(d, 1e-12) / self.usual
        factor = np.maximum(ratio, 1.0 / ratio)
        odd = factor > np.where(self._stiff, limits.stiff, limits.soft)
        torn = (d - self.usual > limits.jump) | (d < limits.contact)
        broken = odd & (self._stiff | torn)
        self.n_broken += int(broken.any(1).sum())
        self.n_odd += int((odd.any(1) & ~broken.any(1)).sum())
        self.worst = self._farther(self.worst, d, factor, rows)
        if broken.any():
            self.broken = self._farther(self.broken, d, np.where(broken, factor, 0.0), rows)

    def _farther(
        self, known: Stretch | None, d: np.ndarray, factor: np.ndarray, rows: np.ndarray
    ) -> Stretch:
        t, k = np.unravel_index(factor.argmax(), factor.shape)
        i, j = self.bonds[k].tolist()
        found = Stretch(float(d[t, k]), float(self.usual[k]), int(rows[t]), (i, j))
        return found if known is None or found.factor > known.factor else known


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
