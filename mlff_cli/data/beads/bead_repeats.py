"""Frames that lie in two files, as those of one trajectory mapped or projected twice.

A frame is known by the SHA-256 of its trajectory, its row there and its molecule, and by its
positions, which other forces do not change. Validation on a frame that another file trains on
would measure nothing.
"""

from __future__ import annotations

import numpy as np

from mlff_cli.core.errors import DataError
from mlff_cli.data.beads.bead_frames import BeadFrames

LOOKED_AT = 256  # frames of a pair of files whose positions are compared
SAME = 1e-3  # angstrom


def refuse_repeated_frames(frames: BeadFrames) -> None:
    """Refuse files that share frames.

    Raises:
        DataError: with both files and a frame that they share.
    """
    known: dict[tuple[str, int], list[tuple[int, np.ndarray, np.ndarray]]] = {}
    for f in range(len(frames.paths) if len(frames.paths) > 1 else 0):
        for key, number, index in _traced(frames, f):
            for other, numbers, others in known.setdefault(key, []):
                _, here, there = np.intersect1d(number, numbers, return_indices=True)
                _compare(frames, f, other, index[here], others[there])
            known[key].append((f, number, index))


def _traced(frames: BeadFrames, file: int) -> list[tuple[tuple[str, int], np.ndarray, np.ndarray]]:
    """(trajectory and molecule, rows in it, numbers of frames) of a file, where it tells them."""
    cg = frames.set_of(file)
    index = np.flatnonzero(frames.file == file)
    source, row = (cg.per_frame(name)[frames.row[index]] for name in ("source", "frame"))
    found = []
    for k, told in enumerate(cg.sources):
        if "sha256" in told:
            for m in np.unique(frames.molecule[index[source == k]]).tolist():
                own = (source == k) & (frames.molecule[index] == m)
                found.append(((str(told["sha256"]), m), row[own], index[own]))
    return found


def _compare(frames: BeadFrames, f: int, other: int, here: np.ndarray, there: np.ndarray) -> None:
    """Refuse frames that agree in their positions, too."""
    chosen = slice(None, None, max(1, len(here) // LOOKED_AT))
    apart = np.abs(frames.padded(here[chosen]).R - frames.padded(there[chosen]).R)
    same = np.flatnonzero(apart.max(axis=(1, 2), initial=0.0) < SAME)
    if len(same):
        i, j = int(here[chosen][same[0]]), int(there[chosen][same[0]])
        raise DataError(
            f"every frame may be given once, {len(here)} frames are in {frames.paths[other]}, too, "
            f"as {frames.name(i)}, which is {frames.name(j)}",
            where=str(frames.paths[f]),
            remedy="give one of the files: frames that are trained on cannot be validated on",
        )
