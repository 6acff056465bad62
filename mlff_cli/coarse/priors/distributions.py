"""Histograms of internal coordinates per kind of term and per residue type, as a stream.

    P(q) = J(q) exp(-U(q) / kT) / Z,     J = r^2 (distances),  sin theta (angles),  1 (dihedrals)

Bins are fixed and fine, so that memory does not grow with frames, and counts are whole numbers, so
that neither the order of frames nor the size of chunks changes anything.

| kind              | coordinate   | type                 | bins                     |
|-------------------|--------------|----------------------|--------------------------|
| `bond`            | r            | both beads           | 0.002 A to 30 A          |
| `angle`           | theta        | the central bead     | 0.1 degree               |
| `dihedral`        | phi          | the two central beads| 0.25 degree, periodic    |
| `excluded_volume` | r, 2-5       | both beads           | 0.01 A to 10 A           |
| `repulsion`       | r, 6 or more | both beads           | 0.01 A to 10 A           |
| `disulfide`       | r            | both beads           | 0.002 A to 30 A          |

Pairs are 2 to 5, and 6 or more, residues apart. Disulfides are bonds, but not the chain's: they are
as long as no other, so that they are counted apart from the bonds that all types share.

Pairs grow with the square of the chain, and their percentiles settle long before angles have many
samples: of large sets their distances are counted in every s-th frame, one drawn of each s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mlff_cli.data.beads.prior_file import PAIR_TERMS
from mlff_cli.physics.internal_coordinates import angles, dihedrals, distances
from mlff_cli.physics.terms import Terms

POOLED = ("*",)
CONTACT = 10.0  # angstrom; pairs further apart say nothing about repulsion
LOCAL = (2, 5)  # separations of excluded volume
FAR = 6  # separations of repulsion from here on
PAIRS = 1 << 29  # distances of pairs that are counted in all; of more, frames are drawn
_VALUES = 1 << 19  # coordinates held at a time


@dataclass(frozen=True)
class TermKind:
    """One kind of term.

    Attributes:
        name: as in the table above.
        low, high: where the bins begin and end.
        n_bins: how many.
        unit: of the coordinate.
        moment: antiderivative of J.
        centre: which beads of a row make its type.
        periodic: whether high is low again.
    """

    name: str
    low: float
    high: float
    n_bins: int
    unit: str
    moment: Callable[[np.ndarray], np.ndarray]
    centre: tuple[int, ...]
    periodic: bool = False

    @property
    def edges(self) -> np.ndarray:
        """(n_bins + 1,) borders of the bins."""
        return np.linspace(self.low, self.high, self.n_bins + 1)

    @property
    def centres(self) -> np.ndarray:
        """(n_bins,) middles of the bins."""
        edges = self.edges
        middle: np.ndarray = 0.5 * (edges[1:] + edges[:-1])
        return middle

    @property
    def measure(self) -> np.ndarray:
        """(n_bins,) integral of J over every bin."""
        return np.diff(self.moment(self.edges))


def _cubed(r: np.ndarray) -> np.ndarray:
    return r**3 / 3.0


TERM_KINDS: Mapping[str, TermKind] = {
    k.name: k
    for k in (
        TermKind("bond", 0.0, 30.0, 15_000, "A", _cubed, (0, 1)),
        TermKind("angle", 0.0, np.pi, 1800, "radian", lambda t: -np.cos(t), (1,)),
        TermKind("dihedral", -np.pi, np.pi, 1440, "radian", lambda p: p, (1, 2), periodic=True),
        TermKind("excluded_volume", 0.0, CONTACT, 1000, "A", _cubed, (0, 1)),
        TermKind("repulsion", 0.0, CONTACT, 1000, "A", _cubed, (0, 1)),
        TermKind("disulfide", 0.0, 30.0, 15_000, "A", _cubed, (0, 1)),
    )
}
_COORDINATE = {"angle": angles, "dihedral": dihedrals}


@dataclass
class Histogram:
    """Counts of one coordinate of one type.

    Attributes:
        kind: of term.
        types: names of the residues that make its type, or `POOLED`.
        counts: (n_bins,) int64.
        beyond: values above the last bin.
    """

    kind: TermKind
    types: tuple[str, ...]
    counts: np.ndarray
    beyond: int = 0

    @property
    def n(self) -> int:
        """Values in the bins."""
        return int(self.counts.sum())

    def quantile(self, q: float) -> float:
        """Value below which the share q of the values in the bins lies, linear within a bin."""
        total = np.concatenate([[0], np.cumsum(self.counts)])
        found = int(np.searchsorted(total, q * total[-1], side="left"))
        i = min(max(found, 1), len(self.counts))
        inside = (q * total[-1] - total[i - 1]) / max(self.counts[i - 1], 1)
        return float(self.kind.edges[i - 1] + np.clip(inside, 0.0, 1.0) * self._width)

    def below(self, limit: float) -> Histogram:
        """The part with values below `limit`; the rest is counted as beyond."""
        keep = self.kind.centres < limit
        lost = int(self.counts[~keep].sum())
        return Histogram(self.kind, self.types, np.where(keep, self.counts, 0), self.beyond + lost)

    def coarse(self, bins: int, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
        """Edges (m + 1,) and counts (m,) of about `bins` wider bins from low to high."""
        first = int(np.floor((low - self.kind.low) / self._width + 1e-9))
        last = int(np.ceil((high - self.kind.low) / self._width - 1e-9))
        first, last = max(first, 0), min(last, len(self.counts))
        merge = max((last - first) // bins, 1)
        borders = np.unique(np.append(np.arange(first, last, merge), last))
        return self.kind.edges[borders], np.add.reduceat(self.counts, borders[:-1])

    @property
    def _width(self) -> float:
        return (self.kind.high - self.kind.low) / self.kind.n_bins


def merged(parts: Sequence[Histogram], types: tuple[str, ...]) -> Histogram:
    """Histograms of one kind together, one or more."""
    counts = np.sum([h.counts for h in parts], axis=0)
    return Histogram(parts[0].kind, types, counts, sum(h.beyond for h in parts))


@dataclass(frozen=True)
class TypedRows:
    """Terms of one kind with the type of each.

    Attributes:
        kind: of term.
        rows: (m, 2 to 4) beads.
        types: type names that occur.
        of: (m,) which of them a row has.
    """

    kind: TermKind
    rows: np.ndarray
    types: tuple[tuple[str, ...], ...]
    of: np.ndarray


def typed_rows(
    terms: Terms,
    species: Sequence[str],
    disulfides: np.ndarray | None = None,
) -> list[TypedRows]:
    """The terms of a molecule by kind and type.

    Args:
        terms: of the molecule.
        species: (n_beads,) name of the type of every bead.
        disulfides: (b,) bool, which of the bonds are disulfides; none by default.
    """
    across = np.zeros(len(terms.bonds), dtype=bool) if disulfides is None else disulfides
    rows = {
        "bond": terms.bonds[~across],
        "disulfide": terms.bonds[across],
        "angle": terms.angles,
        "dihedral": terms.dihedrals,
        "excluded_volume": terms.pairs_between(*LOCAL),
        "repulsion": terms.pairs_between(FAR),
    }
    names, number = np.unique(np.asarray(species, dtype=str), return_inverse=True)
    found = []
    for name, kind in TERM_KINDS.items():
        beads = rows[name]
        if len(beads) == 0:
            continue
        # a term read backwards is the same term: its type is too
        keys = np.sort(number[beads[:, list(kind.centre)]], axis=1)
        sizes = (len(names),) * keys.shape[1]
        present, of = np.unique(np.ravel_multi_index(tuple(keys.T), sizes), return_inverse=True)
        each = zip(*np.unravel_index(present, sizes), strict=True)
        types = tuple(tuple(str(names[i]) for i in key) for key in each)
        found.append(TypedRows(kind, beads, types, of))
    return found


def drawn(n_frames: int, every: int, rng: np.random.Generator) -> np.ndarray:
    """(n_frames,) bool: one frame of each `every` that follow one another, drawn.

    An even sample without a period of its own, which frames of several replicas have.
    """
    starts = np.arange(0, n_frames, every)
    chosen = np.zeros(n_frames, dtype=bool)
    chosen[starts + rng.integers(0, np.minimum(every, n_frames - starts))] = True
    return chosen


@dataclass
class Distributions:
    """Histograms by kind and type, and the longest bond.

    Attributes:
        histograms: {(kind, types)}.
        longest: the longest bond in angstrom, its frame and its row of beads, None before any.
    """

    histograms: dict[tuple[str, tuple[str, ...]], Histogram] = field(default_factory=dict)
    longest: tuple[float, int, tuple[int, ...]] | None = None

    def add(
        self,
        x: np.ndarray,
        typed: Sequence[TypedRows],
        frames: np.ndarray | None = None,
        pairs_of: np.ndarray | None = None,
    ) -> None:
        """Count the terms of frames of one molecule.

        Args:
            x: (T, n_beads, 3) finite coordinates in angstrom.
            typed: of the molecule, from `typed_rows`.
            frames: (T,) numbers of the frames, for messages.
            pairs_of: (T,) bool, frames of which pairs are counted; all by default.
        """
        every = np.asarray(x, dtype=np.float64)
        some = every if pairs_of is None else every[pairs_of]
        for part in typed:
            x = some if part.kind.name in PAIR_TERMS else every
            if not len(x):
                continue
            step = max(_VALUES // len(x), 1)
            for start in range(0, len(part.rows), step):
                chosen = slice(start, start + step)
                rows, of = part.rows[chosen], part.of[chosen]
                values = _COORDINATE.get(part.kind.name, distances)(x, rows)  # (T, m)
                self._count(part, of, values)
                if part.kind.name in ("bond", "disulfide"):
                    self._note(values, rows, frames)

    def pooled(self, kind: str) -> Histogram | None:
        """The histogram of all types of a kind together; None where the kind does not occur."""
        parts = self.of(kind)
        return merged(parts, POOLED) if parts else None

    def of(self, kind: str) -> list[Histogram]:
        """The histograms of a kind, in the order of their types."""
        return [h for key, h in sorted(self.histograms.items()) if key[0] == kind]

    def _count(self, part: TypedRows, of: np.ndarray, values: np.ndarray) -> None:
        kind = part.kind
        scale = kind.n_bins / (kind.high - kind.low)
        # cut before the cast, which would turn what is too large for it into anything
        bins = np.clip((values - kind.low) * scale, 0, kind.n_bins).astype(np.int64)
        if np.isfinite(kind.high) and kind.unit == "radian":  # the upper border is a value too
            np.minimum(bins, kind.n_bins - 1, out=bins)
        size = kind.n_bins + 1  # one bin more for what lies beyond
        present = np.unique(of)
        local = np.searchsorted(present, of)
        counts = np.bincount((bins + local * size).ravel(), minlength=len(present) * size)
        for t, row in zip(present, counts.reshape(len(present), size), strict=True):
            key = (kind.name, part.types[t])
            known = self.histograms.get(key)
            if known is None:
                known = Histogram(kind, key[1], np.zeros(kind.n_bins, dtype=np.int64))
                self.histograms[key] = known
            known.counts += row[:-1]
            known.beyond += int(row[-1])

    def _note(self, r: np.ndarray, rows: np.ndarray, frames: np.ndarray | None) -> None:
        t, m = np.unravel_index(int(np.argmax(r)), r.shape)
        if self.longest is None or r[t, m] > self.longest[0]:
            frame = int(t if frames is None else frames[t])
            self.longest = (float(r[t, m]), frame, tuple(int(b) for b in rows[m]))
