"""Frames of a mapped set in the order of their trajectories, cut into pieces of work.

The cut depends on the set alone, not on who does the work: sums over the pieces, in their order,
then have the same terms everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlff_cli.core.errors import DataError
from mlff_cli.data.beads.cg_npz import CGSet
from mlff_cli.data.trajectories.opening import Frames, Trajectory, chunks

TASK_BYTES = 32 << 20  # of float64 forces in one piece of work


@dataclass(frozen=True)
class Rows:
    """Frames of one molecule of a set.

    Attributes:
        rows: (T,) int64 rows of the set, ascending.
        source: (T,) trajectory of each.
        frame: (T,) frame in it.
        temperature: (T,) K; NaN not known.
    """

    rows: np.ndarray
    source: np.ndarray
    frame: np.ndarray
    temperature: np.ndarray

    @property
    def order(self) -> np.ndarray:
        """(T,) the permutation by trajectory, then frame."""
        return np.lexsort((self.frame, self.source))

    def select(self, which: np.ndarray) -> Rows:
        """Some of them, in the order of `which`."""
        return Rows(*(values[which] for values in vars(self).values()))


def pieces(
    source: np.ndarray, label: np.ndarray, n_atoms: int, n_groups: int = 0
) -> Iterator[np.ndarray]:
    """Indices of consecutive frames of one source and one label.

    A piece has `TASK_BYTES` of forces at most; where its result is a Gram matrix of g groups, or
    2 g frames: then its 6 g N numbers are more than the g^2 that are handed back and added up.
    They are read as a stream (`read_frames`).

    Args:
        source: (T,) trajectory of each frame.
        label: (T,) anything that must not mix.
        n_atoms: of the trajectories.
        n_groups: g of a Gram matrix; 0 where the result is none.
    """
    step = max(1, TASK_BYTES // (24 * n_atoms), 2 * n_groups)
    changes = (np.diff(source) != 0) | (np.diff(label) != 0)
    for run in np.split(np.arange(len(source)), np.flatnonzero(changes) + 1):
        for start in range(0, len(run), step):
            yield run[start : start + step]


def read_frames(
    trajectory: Trajectory, frames: np.ndarray, atoms: np.ndarray, **what: bool
) -> Iterator[Frames]:
    """Frames in any order, some at a time, of some atoms.

    Args:
        trajectory: opened.
        frames: (T,) rows of it.
        atoms: (N,) which atoms, ascending.
        what: `positions` and `forces`, as for `Trajectory.read`.

    Raises:
        DataError: see `Trajectory.read`.
    """
    whole = np.array_equal(atoms, np.arange(trajectory.n_atoms))
    for rows in chunks(frames, trajectory.n_atoms, arrays=max(1, sum(what.values()))):
        ascending, back = np.unique(rows, return_inverse=True)
        found = trajectory.read(ascending, **what)
        if whole and len(ascending) == len(rows) and (back[1:] > back[:-1]).all():
            yield found
            continue
        arrays: dict[str, Any] = {}
        for name, values in vars(found).items():
            of_atoms = name in ("positions", "forces") and values is not None and not whole
            picked = values[:, atoms] if of_atoms else values
            arrays[name] = None if picked is None else picked[back]
        yield Frames(**arrays)


def rows_of_molecules(cg: CGSet) -> list[Rows]:
    """Frames of every molecule of a set.

    Raises:
        DataError: a molecule has no frames, or a frame belongs to a molecule that is not there.
    """
    told = {name: cg.per_frame(name) for name in ("source", "frame", "temperature", "molecule")}
    n = len(cg.molecules)
    unknown = np.flatnonzero((told["molecule"] < 0) | (told["molecule"] >= n))
    if len(unknown):
        raise DataError(
            f"molecule must be 0 to {n - 1}, found {told['molecule'][unknown[0]]}",
            where=f"{cg.path}, frame {unknown[0]}",
        )
    by_molecule = np.argsort(told.pop("molecule"), kind="stable")
    counts = np.bincount(cg.per_frame("molecule"), minlength=n)
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        raise DataError(
            f"a force map needs frames, molecule {empty[0]} of the set has none",
            where=str(cg.path),
            remedy="leave it out of the set",
        )
    found = np.split(by_molecule, np.cumsum(counts)[:-1])
    return [Rows(rows, *(values[rows] for values in told.values())) for rows in found]
