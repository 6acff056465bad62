"""Which frames of a coarse-grained set belong to one temperature.

Frames nearer than `SAME` are of one ensemble: thermostats and float32 round.
"""

from __future__ import annotations

import numpy as np

from mlff_cli.core.errors import UsageError
from mlff_cli.data.beads.cg_npz import CGSet

SAME = 0.5  # K


def rows_of_temperature(cg: CGSet, wanted: float | None) -> tuple[np.ndarray, float]:
    """Rows of the frames of one temperature, and that temperature in K.

    Args:
        cg: the set.
        wanted: K; None takes the set's own. A set that does not say its temperature is all of
            this one.

    Raises:
        UsageError: there are several temperatures, none is known, or no frame has the wanted one.
    """
    told = cg.per_frame("temperature").astype(np.float64)
    known = np.isfinite(told)
    if not known.any():
        if wanted is None:
            raise UsageError(
                "the temperature of the frames is needed, the set does not say it",
                where=str(cg.path),
                remedy="pass --temperature, as --temperature 300",
            )
        return np.arange(cg.n_frames), wanted
    found = _temperatures(told[known])
    if wanted is None:
        if len(found) > 1:
            raise UsageError(
                f"one temperature is needed, the set has {_listed(found)} K",
                where=str(cg.path),
                remedy=f"pass --temperature {found[0]:g} to use the frames of that one",
            )
        wanted = found[0]
    near = known & (np.abs(told - wanted) <= SAME)
    if not near.any():
        raise UsageError(
            f"no frame has the temperature {wanted:g} K, the set has {_listed(found)} K",
            where=str(cg.path),
            remedy=f"pass --temperature {found[0]:g}",
        )
    return np.flatnonzero(near), wanted


def _temperatures(told: np.ndarray) -> list[float]:
    """Temperatures that differ, ascending; each the middle of those that do not."""
    values = np.unique(told)
    groups = np.split(values, np.flatnonzero(np.diff(values) > SAME) + 1)
    return [round(float(np.median(g)), 3) for g in groups]


def _listed(temperatures: list[float]) -> str:
    shown = ", ".join(f"{t:g}" for t in temperatures[:8])
    return shown + (f" and {len(temperatures) - 8} more" if len(temperatures) > 8 else "")
