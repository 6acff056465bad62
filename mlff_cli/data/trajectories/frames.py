"""Frames of a trajectory in our units, and what every opened trajectory offers.

    positions (T, N, 3) angstrom,   forces (T, N, 3) kcal/mol/angstrom

A reader never holds more frames than it was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import mdtraj

CHUNK_BYTES = 16 << 20  # of positions and forces held at a time


@dataclass(frozen=True)
class Frames:
    """Some frames of a trajectory; what the file lacks or was not asked for is None.

    Attributes:
        rows: (T,) rows in the trajectory, int64.
        positions: (T, N, 3) in angstrom, as precise as the file.
        forces: (T, N, 3) in kcal/mol/angstrom, as precise as the file.
        box: (T, 3, 3) edge vectors in rows, angstrom; None where nothing is periodic.
        temperature: (T,) in K, of the replica that a frame belongs to.
        energy: (T,) potential energy in kcal/mol.
        time: (T,) in ps, as the file tells it.
    """

    rows: np.ndarray
    positions: np.ndarray | None = None
    forces: np.ndarray | None = None
    box: np.ndarray | None = None
    temperature: np.ndarray | None = None
    energy: np.ndarray | None = None
    time: np.ndarray | None = None


class Trajectory(Protocol):
    """An opened trajectory; use it as a context manager.

    Attributes:
        path: the file.
        format: "h5md", "npz", "mdcath", "trr", "dcd" or "xtc".
        n_frames: rows it has.
        n_atoms: atoms of each.
        has_forces: whether forces are stored.
        topology: the one it was opened with, else that of the file itself, where it has one.
        precision: step of rounded coordinates in angstrom (XTC 0.01), 0.0 where they are floats.
        facts: what the file says of itself: plain values, as "constraints", "forcefield"; and
            "selection", what stood behind the `@`.
        notes: what a user must be told, as units that were assumed.
    """

    path: Path
    format: str
    n_frames: int
    n_atoms: int
    has_forces: bool
    topology: mdtraj.Topology | None
    precision: float
    facts: dict[str, Any]
    notes: list[str]

    def read(self, rows: np.ndarray, *, positions: bool = True, forces: bool = False) -> Frames:
        """Frames of ascending rows.

        Raises:
            DataError: the file is damaged, a value is not finite, or it has no forces.
        """

    def __enter__(self) -> Trajectory: ...

    def __exit__(self, *error: object) -> None: ...


def chunks(rows: np.ndarray, n_atoms: int, arrays: int = 2) -> Iterator[np.ndarray]:
    """Ascending rows in pieces of about `CHUNK_BYTES` of `arrays` float64 arrays of 3 N numbers."""
    step = max(1, CHUNK_BYTES // (24 * n_atoms * arrays))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]
