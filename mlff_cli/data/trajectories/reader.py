"""What all readers of trajectories do alike: check rows, name damage, refuse what is not finite."""

from __future__ import annotations

import struct
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from mlff_cli.core.errors import DataError
from mlff_cli.data.trajectories.frames import Frames

if TYPE_CHECKING:
    import mdtraj

# what libraries raise over a file that ends too early or holds nonsense
DAMAGE = (
    OSError, EOFError, RuntimeError, KeyError, ValueError, StopIteration,
    struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


class TrajectoryReader(ABC):
    """An opened trajectory (`trajectory.Trajectory` has the attributes).

    A reader sets `n_frames`, `n_atoms` and `has_forces` when it opens and gives `_read`.

    Args:
        path: the file.
    """

    format: str
    no_forces = "write forces with the simulation, or use a format that has them"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n_frames = 0
        self.n_atoms = 0
        self.has_forces = False
        self.topology: mdtraj.Topology | None = None
        self.numbers: np.ndarray | None = None  # (N,) atomic numbers, where the file has them
        self.precision = 0.0
        self.facts: dict[str, Any] = {}
        self.notes: list[str] = []

    def read(self, rows: np.ndarray, *, positions: bool = True, forces: bool = False) -> Frames:
        """Frames of ascending rows.

        Args:
            rows: (T,) rows, ascending.
            positions: read them.
            forces: read them.

        Raises:
            DataError: the file is damaged, a value is not finite, or it has no forces.
            IndexError: the rows do not ascend, or the trajectory has none such.
        """
        rows = np.asarray(rows, dtype="int64")
        if len(rows) and (rows[0] < 0 or rows[-1] >= self.n_frames or (np.diff(rows) <= 0).any()):
            raise IndexError(f"rows ascend from 0 to {self.n_frames - 1}, found {rows}")
        if forces and not self.has_forces:
            raise DataError(
                f"the trajectory ({self.format}) has no forces",
                where=str(self.path),
                remedy=self.no_forces,
            )
        try:
            frames = self._read(rows, positions, forces)
        except DAMAGE as error:
            raise self.damaged(error, rows) from error
        for name in ("positions", "forces", "box", "energy"):
            self._check_finite(name, rows, getattr(frames, name))
        return frames

    @abstractmethod
    def _read(self, rows: np.ndarray, positions: bool, forces: bool) -> Frames:
        """Frames of rows that are there, in our units."""

    @abstractmethod
    def close(self) -> None:
        """Close the file."""

    def damaged(self, error: object, rows: np.ndarray | None = None) -> DataError:
        """What to raise where the file cannot be decoded."""
        place = f", frames {rows[0]} to {rows[-1]}" if rows is not None and len(rows) else ""
        return DataError(
            f"the {self.format.upper()} file is damaged or cut short ({error})",
            where=f"{self.path}{place}",
            remedy="copy or make it again",
        )

    def no_frames(self) -> DataError:
        """What to raise where the file has no frames."""
        return DataError(
            "a trajectory needs at least one frame, found none",
            where=str(self.path),
            remedy="check that the simulation wrote any",
        )

    def _check_finite(self, name: str, rows: np.ndarray, values: np.ndarray | None) -> None:
        if values is None or np.isfinite(values).all():
            return
        index = np.argwhere(~np.isfinite(values))[0]
        atom = f", atom {index[1]}" if name in ("positions", "forces") else ""
        raise DataError(
            f"{name} must be finite, found {values[tuple(index)]}",
            where=f"{self.path}, frame {rows[index[0]]}{atom} (counted from 0)",
            remedy="the simulation failed there: leave these frames out, or repeat it",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def runs(rows: np.ndarray) -> Iterator[tuple[int, int, slice]]:
    """Stretches of consecutive rows: first row, number of rows, and their place among `rows`."""
    starts = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
    for first, last in pairwise(starts):
        if last > first:
            yield int(rows[first]), last - first, slice(first, last)
