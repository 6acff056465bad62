"""A bead molecule as models and engines know it: types, terms, masses, and how it is named.

What a model file keeps of the molecules it was trained on, so that it can be compiled and simulated
without the data set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.physics.terms import Terms

_ROWS = ("bonds", "angles", "dihedrals", "pairs")


@dataclass(frozen=True, eq=False)
class BeadTopology:
    """One molecule of n beads.

    Attributes:
        name: what it is called.
        types: (n,) names of the beads' types, as the species table spells them.
        bead_names: (n,) as "CA".
        residue_names: (n,) as the topology spells them.
        residues: (n,) int64 number of the bead's residue in its chain.
        chains: (n,) int64, 0 for the first chain.
        masses: (n,) float64 amu.
        terms: bonds, angles, dihedrals, pairs.
        start: (n, 3) float64 angstrom, a frame to start from; None where there is none.

    Raises:
        DataError: shapes that do not belong together, or masses that are not above zero.
    """

    name: str
    types: tuple[str, ...]
    bead_names: tuple[str, ...]
    residue_names: tuple[str, ...]
    residues: np.ndarray
    chains: np.ndarray
    masses: np.ndarray
    terms: Terms
    start: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.types)
        for field in ("bead_names", "residue_names", "residues", "chains", "masses"):
            if len(getattr(self, field)) != n:
                raise DataError(
                    f"molecule {self.name!r} has {n} types and "
                    f"{len(getattr(self, field))} {field.replace('_', ' ')}"
                )
        if self.terms.n_beads != n:
            raise DataError(f"molecule {self.name!r} has {n} beads, terms of {self.terms.n_beads}")
        if not (np.isfinite(self.masses) & (self.masses > 0)).all():
            raise DataError(f"masses of molecule {self.name!r} must be above 0, in amu")
        if self.start is not None and self.start.shape != (n, 3):
            raise DataError(f"start of molecule {self.name!r} has shape {self.start.shape}")

    @property
    def n_beads(self) -> int:
        """Beads, n."""
        return len(self.types)

    def plain(self) -> dict[str, Any]:
        """Plain values: texts, numbers and lists; `from_plain` reads them."""
        terms = {name: getattr(self.terms, name).tolist() for name in _ROWS}
        terms["separation"] = self.terms.separation.tolist()
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "terms"}
        values = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in own.items()}
        listed = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
        return {**listed, "terms": terms}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> BeadTopology:
        """What `plain` gave.

        Raises:
            DataError: a value is missing or makes no sense.
        """
        try:
            found = dict(plain)
            types = tuple(map(str, found["types"]))
            rows = {k: np.asarray(v, dtype=np.int64) for k, v in found["terms"].items()}
            start = found.get("start")
            return cls(
                name=str(found["name"]),
                types=types,
                bead_names=tuple(map(str, found["bead_names"])),
                residue_names=tuple(map(str, found["residue_names"])),
                residues=np.asarray(found["residues"], dtype=np.int64),
                chains=np.asarray(found["chains"], dtype=np.int64),
                masses=np.asarray(found["masses"], dtype=np.float64),
                terms=Terms(n_beads=len(types), **rows),
                start=None if start is None else np.asarray(start, dtype=np.float64),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"the molecule is not readable ({error!r})", remedy="make the file again"
            ) from error


def find_molecule(molecules: Sequence[BeadTopology], name: str | None, where: str) -> BeadTopology:
    """The molecule of a name; without one, the only one there is.

    Raises:
        UsageError: none has the name, or there are several and no name is given.
        DataError: there are none at all.
    """
    names = [molecule.name for molecule in molecules]
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    if not names:
        raise DataError("there is no molecule", where=where, remedy="make the file again")
    if name is None:
        if len(molecules) == 1:
            return molecules[0]
        raise UsageError(
            f"there are {len(molecules)} molecules: {shown}",
            where=where,
            remedy="choose one with --molecule NAME",
        )
    if name not in names:
        raise UsageError(
            f"no molecule is called {name!r}; there are {shown}",
            where=where,
            remedy="choose one of them with --molecule",
        )
    return molecules[names.index(name)]
