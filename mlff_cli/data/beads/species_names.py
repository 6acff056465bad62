"""Names of a coarse-grained set's species, those of a seed's set included.

A seed's set numbers its species and names none: they are `type0`, `type1`, ... wherever a name is
needed, in a prior fitted to such sets and in a set that joins them alike.
"""

from __future__ import annotations

from mlff_cli.core.errors import DataError
from mlff_cli.data.beads.cg_npz import CGSet


def species_names(cg: CGSet) -> list[str]:
    """Names by species number.

    Raises:
        DataError: a seed's set with a species below 0.
    """
    if cg.species_table:
        return list(cg.species_table)
    lowest = min(int(layout.species.min()) for layout in cg.layouts)
    if lowest < 0:
        raise DataError(
            f"species of real beads count from 0, found {lowest}",
            where=str(cg.path),
            remedy="set the mask of padding to 0",
        )
    return [f"type{k}" for k in range(max(int(x.species.max()) for x in cg.layouts) + 1)]
