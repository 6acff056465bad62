"""The frames of a coarse-grained set that belong to one temperature (`data.temperatures`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlff_cli.core.errors import UsageError
from mlff_cli.data.beads.cg_npz import CGSet
from mlff_cli.data.temperatures import Temperatures


@dataclass(frozen=True)
class Ensemble:
    """Frames of one temperature.

    Attributes:
        rows: of the set, ascending.
        kelvin: their temperature.
        left_out: what to say of frames that say none where others do; empty where there are none.
    """

    rows: np.ndarray
    kelvin: float
    left_out: str = ""


def rows_of_temperature(cg: CGSet, wanted: float | None) -> Ensemble:
    """The frames of one temperature.

    Args:
        cg: the set.
        wanted: K; None takes the set's own. A set that does not say its temperature is all of
            this one.

    Raises:
        UsageError: there are several temperatures, none is known, or no frame has the wanted one.
    """
    found = Temperatures.of(cg.per_frame("temperature"))
    where = str(cg.path)
    if not found.kelvin:
        if wanted is None:
            raise UsageError(
                "the temperature of the frames is needed, the set does not say it",
                where=where,
                remedy="pass --temperature, as --temperature 300",
            )
        return Ensemble(np.arange(cg.n_frames), wanted)
    silent = f"{found.n_unknown} of {cg.n_frames} frames do not say their temperature"
    also = f"; {silent}" if found.n_unknown else ""
    first = found.kelvin[0]
    if wanted is None:
        if len(found.kelvin) > 1:
            raise UsageError(
                f"one temperature is needed, the set has {found} K{also}",
                where=where,
                remedy=f"pass --temperature {first:g} to use the frames of that one",
            )
        wanted = first
    rows = found.rows(wanted)
    if not len(rows):
        raise UsageError(
            f"no frame has the temperature {wanted:g} K, the set has {found} K{also}",
            where=where,
            remedy=f"pass --temperature {first:g}",
        )
    return Ensemble(rows, wanted, f"{silent} and are left out" if found.n_unknown else "")
