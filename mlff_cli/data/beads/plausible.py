"""Values that no frame of beads has: what is not a number, and what only damage makes so large."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np

from mlff_cli.core.errors import DataError

# Positions in float32 are 0.06 angstrom apart at the first. No bond that holds has the second: a
# bead force at room temperature is below a thousand.
LARGEST = MappingProxyType({"R": 1e6, "F": 1e6})
UNITS = MappingProxyType({"R": "angstrom", "F": "kcal/mol/angstrom"})


def check_values(name: str, values: np.ndarray, rows: np.ndarray, where: str) -> None:
    """Refuse values of real beads that no molecule has.

    Args:
        name: R or F.
        values: (t, n, 3) of frames without padding.
        rows: (t,) numbers of the frames in their file.
        where: the file.

    Raises:
        DataError: a value is not finite, or beyond `LARGEST`; names frame, bead and value.
    """
    largest = LARGEST[name]
    if (np.abs(values) <= largest).all():  # false of NaN, too
        return
    finite = np.isfinite(values)
    wrong = ~finite if not finite.all() else np.abs(values) > largest
    t, bead = np.argwhere(wrong.any(-1))[0]
    rule = "finite" if not finite.all() else f"at most {largest:g} {UNITS[name]} in size"
    raise DataError(
        f"{name} must be {rule}, frame {rows[t]}, bead {bead} has {values[t, bead]}",
        where=where,
        remedy="leave that frame out, or make the set again",
    )
