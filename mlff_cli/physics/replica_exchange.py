"""Replica exchange between temperatures (Sugita and Okamoto, Chem. Phys. Lett. 314, 141, 1999).

    P(swap a, b) = min(1, exp[(beta_a - beta_b) (U_a - U_b)]),    beta = 1 / (k_B T)

leaves the product of the canonical distributions as it is. Neighbouring temperatures are tried,
even pairs (0-1, 2-3, ...) and odd pairs (1-2, ...) in turn. Velocities are rescaled by
sqrt(T_new / T_old), which does the same for the momenta.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

K_B = 0.00831446261815324  # kJ/mol/K: N_A k_B, exact in the SI


def tried(n_pairs: int, attempt: int) -> np.ndarray:
    """(n_pairs,) which pairs of neighbours are tried when so many attempts came before."""
    return np.asarray(np.arange(n_pairs) % 2 == attempt % 2)


def swap(
    energies: np.ndarray,
    temperatures: np.ndarray,
    attempt: int,
    rng: np.random.Generator,
    log_p: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Try to exchange the configurations of neighbouring temperatures.

    Args:
        energies: (K,) of the configuration at every temperature, kJ/mol.
        temperatures: (K,) in K.
        attempt: how many attempts came before; even and odd ones try other pairs.
        rng: where uniform numbers come from; K - 1 of them are drawn, whatever is tried.
        log_p: (K-1,) ln of the probability of every pair, where it is another than that of a plain
            swap (`physics.mapped_exchange`); NaN leaves a pair to the plain rule.

    Returns:
        order (K,): which temperature the configuration now at temperature k was at; attempted
        (K-1,) and accepted (K-1,): pairs (k, k+1).
    """
    beta = 1 / (K_B * temperatures)
    plain = (beta[:-1] - beta[1:]) * (energies[:-1] - energies[1:])
    rule = plain if log_p is None else np.where(np.isnan(log_p), plain, log_p)
    attempted = tried(len(rule), attempt)
    accepted = attempted & (np.log1p(-rng.random(len(rule))) < rule)  # log of (0, 1]
    order = np.arange(len(energies))
    for k in np.flatnonzero(accepted):
        order[[k, k + 1]] = order[[k + 1, k]]
    return order, attempted, accepted


@dataclass
class Ladder:
    """Which replica is at which temperature, and how exchange went.

    Attributes:
        temperatures: (K,) in K, ascending.
        replica: (K,) replica at every temperature.
        attempted: (K-1,) swaps tried between neighbours.
        accepted: (K-1,) swaps done.
        attempts: exchange steps so far.
        last_end: (K,) of every replica: 0 it came from the lowest temperature, 1 from the highest,
            -1 it has seen neither.
        trips: (K,) passages of every replica from one end to the other.
    """

    temperatures: np.ndarray
    replica: np.ndarray
    attempted: np.ndarray
    accepted: np.ndarray
    attempts: int
    last_end: np.ndarray
    trips: np.ndarray

    @classmethod
    def start(cls, temperatures: np.ndarray) -> Ladder:
        """Replica k at temperature k."""
        n = len(temperatures)
        last_end = np.full(n, -1)
        last_end[-1], last_end[0] = 1, 0
        tried, done = np.zeros((2, n - 1), dtype="int64")
        trips = np.zeros(n, dtype="int64")
        return cls(np.asarray(temperatures), np.arange(n), tried, done, 0, last_end, trips)

    def exchange(
        self, energies: np.ndarray, seed: int, log_p: np.ndarray | None = None
    ) -> np.ndarray:
        """One exchange step; the random numbers depend on `seed` and the step's number alone.

        Args:
            energies: (K,) at every temperature, kJ/mol.
            seed: of all exchange.
            log_p: (K-1,) of mapped swaps, see `swap`.

        Returns:
            order (K,), see `swap`.
        """
        rng = np.random.default_rng([seed, self.attempts])
        order, attempted, accepted = swap(energies, self.temperatures, self.attempts, rng, log_p)
        self.attempts += 1
        self.attempted += attempted
        self.accepted += accepted
        self.replica = self.replica[order]
        for end, k in ((0, 0), (1, -1)):
            who = self.replica[k]
            self.trips[who] += self.last_end[who] == 1 - end
            self.last_end[who] = end
        return order

    @property
    def acceptance(self) -> np.ndarray:
        """(K-1,) share of swaps that were done; NaN where none was tried."""
        share = np.full(len(self.attempted), np.nan)
        np.divide(self.accepted, self.attempted, out=share, where=self.attempted > 0)
        return share

    def plain(self) -> dict[str, Any]:
        """Arrays by name, for a state file."""
        names = ("replica", "attempted", "accepted", "attempts", "last_end", "trips")
        return {name: np.asarray(getattr(self, name)) for name in names}

    @classmethod
    def restored(cls, temperatures: np.ndarray, arrays: Mapping[str, Any]) -> Ladder:
        """What `plain` gave."""
        values = {name: arrays[name].copy() for name in cls.start(temperatures).plain()}
        return cls(np.asarray(temperatures), **{**values, "attempts": int(values["attempts"])})
