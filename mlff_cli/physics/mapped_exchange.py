"""Swaps of replica exchange that a map f between two temperatures makes.

    x_i -> f(x_i),   x_j -> f^-1(x_j)              i: where f comes from, j: where it leads to

    ln P = -[beta_j U(f(x_i))    - ln|det J_f(x_i)|    - beta_i U(x_i)]          = -w_F(x_i)
           -[beta_i U(f^-1(x_j)) - ln|det J_f^-1(x_j)| - beta_j U(x_j)]          - w_R(x_j)

P(swap) = min(1, e^(ln P)) leaves the product of both canonical distributions as it is, whatever f
is, as long as it is invertible and its log-determinants are right (A. J. Ballard, C. Jarzynski,
Proc. Natl. Acad. Sci. 106, 12224, 2009; M. Invernizzi, A. Kraemer, C. Clementi, F. Noe, J. Phys.
Chem. Lett. 13, 11643, 2022). A swap back has -ln P. With f the identity it is the plain swap.

Conformations count, not where they lie: f may put them anywhere and turn them, as a flow on 3N-6
coordinates does, since neither the energy nor the thermostat knows the difference. So velocities
are drawn anew from the temperature that a conformation came to: that keeps their distribution, and
a turned molecule has no use for its old ones.

Hands count as well. Energies do not know them, so that the rule alone would let f put mirror images
into the ensembles, which dynamics never makes. A swap that changes the hand of an atom with four
neighbours has P = 0. So has its way back, and the ensembles are those of the hands at the start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from mlff_cli.core.errors import UsageError
from mlff_cli.physics.replica_exchange import K_B, Ladder, tried
from mlff_cli.physics.stereocentres import crowded_atoms, hands

SAME = 0.5  # K that a map's temperature may be away from a ladder's
COUNTS = ("evaluations", "mirrored")

Energies = Callable[[np.ndarray], np.ndarray]  # (B, N, 3) nm -> (B,) kJ/mol


class Map(Protocol):
    """An invertible map between the conformations of two temperatures.

    Attributes:
        source: K, where it comes from.
        target: K, where it leads to.
    """

    source: float
    target: float

    def __call__(self, positions: np.ndarray, *, inverse: bool) -> tuple[np.ndarray, np.ndarray]:
        """Moved positions (B, N, 3) in nm and log-determinants (B,) of positions (B, N, 3)."""

    def require(self, numbers: np.ndarray, bonds: np.ndarray) -> None:
        """Refuse another molecule than the map's.

        Args:
            numbers: (N,) atomic numbers.
            bonds: (b, 2) bonded atoms.

        Raises:
            UsageError: the map does not know it.
        """


@dataclass(frozen=True)
class Proposal:
    """Swaps that were computed and not yet decided.

    Attributes:
        pair: k of the temperatures k, k + 1 of the ladder.
        positions: (L, 2, N, 3) nm, what every ladder would have at k and at k + 1.
        log_p: (L,) ln P.
    """

    pair: int
    positions: np.ndarray
    log_p: np.ndarray

    def of_ladder(self, row: int, n_pairs: int) -> np.ndarray:
        """(n_pairs,) what `Ladder.exchange` takes: NaN where a swap is plain."""
        found = np.full(n_pairs, np.nan)
        found[self.pair] = self.log_p[row]
        return found


@dataclass
class MappedExchange:
    """Mapped swaps of one pair of neighbouring temperatures, for L ladders at once.

    Attributes:
        move: the map.
        temperatures: (K,) K of a ladder, ascending.
        bonds: (b, 2) bonded atoms, whose hands are kept; without any, none is known.
        pair: k of the temperatures k, k + 1 that the map joins.
        upward: whether it leads from k to k + 1.
        evaluations: energies computed for proposals so far; every proposal needs two.
        mirrored: proposals refused so far because they change the hand of an atom.

    Raises:
        UsageError: the temperatures of the map are no neighbours in the ladder.
    """

    move: Map
    temperatures: np.ndarray
    bonds: np.ndarray = field(default_factory=lambda: np.empty((0, 2), np.int64))
    pair: int = field(init=False)
    upward: bool = field(init=False)
    evaluations: int = 0
    mirrored: int = 0

    def __post_init__(self) -> None:
        ends = (self.move.source, self.move.target)
        self.upward = ends[0] < ends[1]
        low, high = sorted(ends)
        t = np.asarray(self.temperatures, np.float64)
        fits = (abs(t[:-1] - low) <= SAME) & (abs(t[1:] - high) <= SAME)
        if not fits.any():
            raise UsageError(
                f"a flow joins two neighbouring temperatures: this one {low:g} and {high:g} K, "
                f"found {', '.join(f'{x:g}' for x in t)} K",
                remedy=f"pass --temperature {low:g},{high:g}, with others below or above only",
            )
        self.pair = int(np.flatnonzero(fits)[0])
        self._neighbours = crowded_atoms(self.bonds)

    def due(self, ladder: Ladder) -> bool:
        """Whether the ladder's next exchange tries this pair."""
        return bool(tried(len(self.temperatures) - 1, ladder.attempts)[self.pair])

    def propose(self, positions: np.ndarray, energies: np.ndarray, energy_of: Energies) -> Proposal:
        """Compute swaps; who decides is `Ladder.exchange`.

        Args:
            positions: (L, 2, N, 3) nm at the temperatures k and k + 1.
            energies: (L, 2) of them, kJ/mol.
            energy_of: the energy of any conformations; not finite where it cannot be evaluated.
        """
        n = len(positions)
        first, second = positions[:, 0], positions[:, 1]
        up, log_up = self.move(first, inverse=not self.upward)
        down, log_down = self.move(second, inverse=self.upward)
        moved = np.concatenate([up, down])
        new = np.asarray(energy_of(moved), np.float64)
        self.evaluations += 2 * n
        low, high = 1 / (K_B * np.asarray(self.temperatures)[self.pair : self.pair + 2])
        work = high * new[:n] - log_up - low * energies[:, 0]
        work += low * new[n:] - log_down - high * energies[:, 1]
        possible = np.isfinite(work)
        same = hands(moved, self._neighbours) == hands(
            np.concatenate([first, second]), self._neighbours
        )
        kept = same.all(axis=1).reshape(2, n).all(axis=0)
        self.mirrored += int((possible & ~kept).sum())
        log_p = np.where(possible & kept, -work, -np.inf)
        return Proposal(self.pair, np.stack([down, up], axis=1), log_p)

    def accepted(self, order: np.ndarray) -> bool:
        """Whether the exchange that gave this order (K,) did the mapped swap."""
        return bool(order[self.pair] == self.pair + 1)

    def plain(self) -> dict[str, np.ndarray]:
        """Counts by name, for a state file."""
        return {f"mapped_{name}": np.asarray(getattr(self, name)) for name in COUNTS}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on counting from what `plain` gave."""
        for name in COUNTS:
            setattr(self, name, int(state[f"mapped_{name}"]))
