"""Pairs within reach of each other: the terms that frames of one molecule need, and no others.

A soft sphere is exactly zero from its cutoff on, and so are its derivatives: leaving out what is
further apart changes nothing but the time. A chain of 500 beads has 125 000 pairs, some ten
thousand of them within reach.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree

from mlff_cli.potentials.prior import BoundTerms, Prior


class NearTerms:
    """Finds the terms of frames that can have an energy.

    Args:
        prior: the prior.
        bound: terms of one molecule, not of several.
    """

    def __init__(self, prior: Prior, bound: BoundTerms) -> None:
        self.bound = bound
        self._tables = [
            None
            if cutoffs is None
            else _Pairs(bound.n_beads, beads.cpu().numpy(), rows.cpu().numpy(), cutoffs)
            for cutoffs, beads, rows in zip(prior.cutoffs(), bound.beads, bound.rows, strict=True)
        ]
        self.reach = max((t.reach for t in self._tables if t is not None), default=0.0)

    def of(self, x: np.ndarray) -> BoundTerms:
        """Terms of frames x (T, n_beads, 3), laid one after the other as (T n_beads, 3)."""
        T, n = len(x), self.bound.n_beads
        i, j = np.concatenate([self._near(frame) + n * t for t, frame in enumerate(x)]).T
        beads, rows = [], []
        for pairs, old, row in zip(self._tables, self.bound.beads, self.bound.rows, strict=True):
            if pairs is None:
                starts = n * torch.arange(T, device=old.device)
                beads.append((old + starts[:, None, None]).reshape(-1, old.shape[1]))
                rows.append(row.repeat(T))
            else:
                found = pairs.row[i % n, j % n]
                kept = found >= 0
                beads.append(torch.from_numpy(np.stack([i[kept], j[kept]], 1)).to(old))
                rows.append(torch.from_numpy(found[kept]).to(row))
        molecule = torch.arange(T).repeat_interleave(n).to(self.bound.beads[0].device)
        return BoundTerms(n * T, tuple(beads), tuple(rows), molecule, T)

    def _near(self, frame: np.ndarray) -> np.ndarray:
        """Pairs (p, 2) of beads i < j within reach."""
        if self.reach == 0.0:
            return np.zeros((0, 2), dtype=np.int64)
        found: np.ndarray = cKDTree(frame).query_pairs(self.reach, output_type="ndarray")
        return found


class _Pairs:
    """Which row of parameters a pair of beads takes, -1 for none: `row` (n, n) of i < j."""

    def __init__(self, n: int, beads: np.ndarray, rows: np.ndarray, cutoffs: np.ndarray) -> None:
        self.row = np.full((n, n), -1, dtype=np.int32)
        self.row[beads.min(1), beads.max(1)] = rows
        self.reach = float(cutoffs[rows].max(initial=0.0))
