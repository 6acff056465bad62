"""Which frames of trajectories are taken: of one temperature, every so many, a number at random."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.data.temperatures import Temperatures
from mlff_cli.data.trajectories.frames import Trajectory

ROWS = 10_000  # frames whose temperature is read at a time


def frame_temperatures(trajectory: Trajectory) -> np.ndarray:
    """(T,) K of every frame; NaN where the trajectory does not say.

    Raises:
        DataError: a temperature is 0 K, below, or infinite.
    """
    rows = np.arange(trajectory.n_frames)
    if trajectory.read(rows[:1], positions=False).temperature is None:
        return np.full(len(rows), np.nan)
    pieces = [rows[k : k + ROWS] for k in range(0, len(rows), ROWS)]
    read = [trajectory.read(piece, positions=False).temperature for piece in pieces]
    found = np.concatenate([np.asarray(t, float) for t in read])
    odd = np.flatnonzero((found <= 0) | np.isinf(found))
    if len(odd):
        raise DataError(
            f"temperatures are above 0 K, {len(odd)} of {len(found)} frames have others, the first "
            f"{found[odd[0]]:g}",
            where=f"{trajectory.path}, frame {odd[0]}",
            remedy="leave temperature out of the file if it is not known",
        )
    return found


def choose_frames(
    temperatures: Sequence[np.ndarray],
    *,
    temperature: float | None = None,
    stride: int = 1,
    frames: int | None = None,
    seed: int = 0,
) -> list[np.ndarray]:
    """Rows to take of each trajectory, ascending.

    Args:
        temperatures: of each trajectory, (T,) in K of its frames.
        temperature: take frames of this temperature.
        stride: of what is left, take every so many of each temperature of each trajectory, the
            first included. Replica exchange writes temperatures in turn: a stride over all frames
            could leave one temperature out.
        frames: of what is left, take so many, each set of so many as likely as any other.
        seed: of that choice.

    Raises:
        DataError: no frame has that temperature, or the files do not say theirs.
        UsageError: fewer frames are left than are asked for.
    """
    found = Temperatures.of(np.concatenate([np.asarray(t, float) for t in temperatures]))
    wanted = None if temperature is None else found.number(temperature)
    if temperature is not None and wanted is None:
        raise _no_such_temperature(found, temperature)
    ends = np.cumsum([len(t) for t in temperatures])[:-1]
    chosen = [_one(group, wanted, stride) for group in np.split(found.group, ends)]
    total = sum(map(len, chosen))
    if frames is None:
        return chosen
    if frames > total:
        raise UsageError(
            f"--frames {frames} is more than there are: {total} frames are left to choose from",
            remedy="ask for fewer, or leave --frames out to take all",
        )
    drawn = np.sort(np.random.default_rng(seed).choice(total, frames, replace=False))
    starts = np.cumsum([0, *map(len, chosen)])
    return [
        rows[drawn[(drawn >= a) & (drawn < b)] - a]
        for rows, a, b in zip(chosen, starts, starts[1:], strict=False)
    ]


def _one(group: np.ndarray, wanted: int | None, stride: int) -> np.ndarray:
    """Rows of a trajectory whose frames are of these temperatures (`Temperatures.group`)."""
    kinds = np.unique(group) if wanted is None else [wanted]
    return np.sort(np.concatenate([np.flatnonzero(group == k)[::stride] for k in kinds]))


def _no_such_temperature(found: Temperatures, wanted: float) -> DataError:
    if not found.kelvin:
        return DataError(
            f"frames of {wanted:g} K are asked for, and no trajectory says its temperature",
            remedy="leave --temperature out and name files of that temperature only",
        )
    return DataError(f"no frame has {wanted:g} K, found {found} K", remedy="choose one of these")
