"""Bead positions of one molecule at one temperature, told apart by the run they come from.

Coarse-grained sets, simulations of beads, and trajectories of atoms (with a mapping) look alike
from here on: positions in the order of the file, and which of them follow one another in time.

    a set          a series for each source, by the row in it
    a trajectory   frames of one step are replicas: the k-th of each step makes series k

Replica exchange writes one frame of a temperature per step, so that its series is what that
temperature saw, whichever replica was there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.data.beads.cg_npz import CGSet
from mlff_cli.data.temperatures import Temperatures
from mlff_cli.data.trajectories.frame_choice import ROWS, frame_temperatures
from mlff_cli.data.trajectories.frames import Trajectory, chunks

MAX_FRAMES = 100_000  # of an ensemble; of more, every s-th of each series is taken
SAME_TIME = 1e-6  # ps, and relative: frames of one step

Beads = Callable[[np.ndarray, np.ndarray | None], np.ndarray]  # atoms and box -> beads


@dataclass(frozen=True)
class Conformations:
    """Frames of one molecule.

    Attributes:
        where: file, for messages.
        rows: (N,) rows of the file that are read, ascending or as the set is read best.
        order: (N,) places among `rows`, series after series, each by time.
        lengths: frames of each series.
        kelvin: temperature; None where the file does not say.
        spacing: time between frames of a series, ps, or rows where `timed` is not; None where they
            are not evenly spaced.
        timed: whether `spacing` is a time.
        notes: what a user must be told.
        blocks: positions (T, n, 3) in angstrom, in the order of `rows`.
    """

    where: str
    rows: np.ndarray
    order: np.ndarray
    lengths: tuple[int, ...]
    kelvin: float | None
    spacing: float | None
    timed: bool
    blocks: Callable[[], Iterator[np.ndarray]]
    notes: list[str] = field(default_factory=list)

    @property
    def n_frames(self) -> int:
        """Frames, N."""
        return len(self.rows)

    def series(self, values: np.ndarray) -> np.ndarray:
        """Values (N, ...) in the order of `rows`, series after series."""
        return np.asarray(np.asarray(values)[self.order])


def conformations_of_set(cg: CGSet, molecule: int, kelvin: float | None) -> Conformations:
    """Frames of one molecule of a set.

    Args:
        cg: the opened set; it must stay open.
        molecule: its number.
        kelvin: temperature of the frames; None: the only one there is.

    Raises:
        UsageError: there are several temperatures, or none of the wanted one.
        DataError: the molecule has no frame.
    """
    rows = np.flatnonzero(cg.per_frame("molecule") == molecule)
    if not len(rows):
        raise DataError(f"molecule {molecule} has no frame", where=str(cg.path))
    rows, found = _at(cg.per_frame("temperature")[rows], kelvin, rows, str(cg.path))
    source, frame = cg.per_frame("source")[rows], cg.per_frame("frame")[rows]
    keep, order, lengths, spacing, notes = _runs(source, frame.astype(float), str(cg.path))
    rows = rows[keep]

    def blocks() -> Iterator[np.ndarray]:
        for block in cg.blocks(rows, forces=False):
            yield np.asarray(block.R)

    return Conformations(str(cg.path), rows, order, lengths, found, spacing, False, blocks, notes)


def conformations_of_trajectory(
    trajectory: Trajectory,
    n_beads: int,
    kelvin: float | None,
    beads: Beads | None = None,
    discard: float = 0.0,
) -> Conformations:
    """Frames of a trajectory of beads, or of atoms that are mapped to beads.

    Args:
        trajectory: opened; it must stay open.
        n_beads: of the molecule.
        kelvin: temperature of the frames; None: the only one there is.
        beads: maps atoms to beads; None where the trajectory has beads.
        discard: ps at the beginning that are left out.

    Raises:
        UsageError: there are several temperatures, or none of the wanted one; all frames are left
            out, or the file tells no times to leave out by.
        DataError: it has another number of beads, or is damaged.
    """
    where = str(trajectory.path)
    if beads is None and trajectory.n_atoms != n_beads:
        raise DataError(
            f"a trajectory of {n_beads} beads is needed, found {trajectory.n_atoms}",
            where=where,
            remedy="choose the molecule that was simulated with --molecule; atoms are mapped "
            "where the set of the evaluation knows how",
        )
    rows = np.arange(trajectory.n_frames)
    rows, found = _at(frame_temperatures(trajectory), kelvin, rows, where)
    time = _times(trajectory, rows)
    if discard > 0:
        rows, time = _after(discard, rows, time, where)
    series, step = _replicas(time, len(rows))
    keep, order, lengths, spacing, notes = _runs(series, step, where)
    rows = rows[keep]

    def blocks() -> Iterator[np.ndarray]:
        for piece in chunks(rows, trajectory.n_atoms, arrays=1):
            frames = trajectory.read(piece)
            assert frames.positions is not None
            x = frames.positions
            yield np.asarray(x if beads is None else beads(x, frames.box))

    timed = time is not None
    return Conformations(where, rows, order, lengths, found, spacing, timed, blocks, notes)


def _at(
    told: np.ndarray, kelvin: float | None, rows: np.ndarray, where: str
) -> tuple[np.ndarray, float | None]:
    """Rows of one temperature, and that temperature."""
    found = Temperatures.of(told)
    if not found.kelvin:
        return rows, None
    if kelvin is None and len(found.kelvin) > 1:
        raise UsageError(
            f"one temperature is needed, the frames have {found} K",
            where=where,
            remedy=f"pass --temperature {found.kelvin[0]:g}",
        )
    wanted = found.kelvin[0] if kelvin is None else kelvin
    number = found.number(wanted)
    if number is None:
        raise UsageError(
            f"no frame has the temperature {wanted:g} K, found {found} K",
            where=where,
            remedy="compare ensembles of one temperature; choose it with --temperature",
        )
    return rows[found.group == number], found.kelvin[number]


def _times(trajectory: Trajectory, rows: np.ndarray) -> np.ndarray | None:
    """(T,) ps of rows; None where the file tells none."""
    pieces = []
    for k in range(0, len(rows), ROWS):
        time = trajectory.read(rows[k : k + ROWS], positions=False).time
        if time is None:
            return None
        pieces.append(np.asarray(time, float))
    return np.concatenate(pieces) if pieces else None


def _after(
    discard: float, rows: np.ndarray, time: np.ndarray | None, where: str
) -> tuple[np.ndarray, np.ndarray]:
    if time is None:
        raise UsageError(
            f"{discard:g} ps are to be left out, and the file tells no times",
            where=where,
            remedy="leave --discard out",
        )
    late = time - time.min() >= discard * (1 - SAME_TIME)
    if not late.any():
        raise UsageError(
            f"no frame is left after {discard:g} ps, the last is at {np.ptp(time):g} ps",
            where=where,
            remedy="discard less",
        )
    return rows[late], time[late]


def _replicas(time: np.ndarray | None, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Series of every frame, and its time: the k-th frame of a step belongs to series k."""
    if time is None:
        return np.zeros(n, int), np.arange(n, dtype=float)
    ascending = np.argsort(time, kind="stable")
    t = time[ascending]
    limit = SAME_TIME * max(1.0, float(np.abs(t).max(initial=0.0)))
    new = np.concatenate([[True], np.diff(t) > limit])
    first = np.flatnonzero(new)
    place = np.arange(n) - first[np.cumsum(new) - 1]
    series = np.empty(n, int)
    series[ascending] = place
    return series, time


def _runs(
    series: np.ndarray, step: np.ndarray, where: str
) -> tuple[np.ndarray, np.ndarray, tuple[int, ...], float | None, list[str]]:
    """What to keep, the order among it, lengths, spacing and notes of frames of several series."""
    n = len(series)
    every = -(-n // MAX_FRAMES)
    order = np.lexsort([step, series])
    kinds, counts = np.unique(series, return_counts=True)
    starts = np.cumsum(counts) - counts
    taken = [order[a : a + c][::every] for a, c in zip(starts, counts, strict=True)]
    keep = np.sort(np.concatenate(taken))
    gaps = np.concatenate([np.diff(step[t]) for t in taken])
    even = len(gaps) > 0 and bool(np.allclose(gaps, gaps[0], rtol=1e-3, atol=0.0) and gaps[0] > 0)
    place = np.searchsorted(keep, np.concatenate(taken))
    notes = []
    if every > 1:
        notes.append(
            f"{where}: {n} frames in {len(kinds)} series, one of {every} of each is compared"
        )
    return keep, place, tuple(map(len, taken)), float(gaps[0]) if even else None, notes
