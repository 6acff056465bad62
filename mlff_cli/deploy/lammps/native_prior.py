"""The prior of one molecule as bonds, angles and dihedrals of LAMMPS.

Repulsion and excluded volume become bonds, too: pair styles of LAMMPS cannot choose beads by how
far apart they are along the chain. Every entry of the prior that the molecule uses is one type.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import ValidationError

from mlff_cli.core.errors import DataError
from mlff_cli.data.beads.prior_file import Entry
from mlff_cli.data.beads.prior_forms import Form
from mlff_cli.deploy.lammps.lepton import expression
from mlff_cli.physics.terms import Terms
from mlff_cli.potentials.prior import Prior
from mlff_cli.potentials.prior_tables import FormTable

KINDS = {2: "bond", 3: "angle", 4: "dihedral"}  # by the beads of a term


@dataclass(frozen=True, eq=False)
class NativeType:
    """One type of bond, angle or dihedral.

    Attributes:
        label: term and names of beads, as "bond ALA-GLY".
        entry: its row of the prior, with the parameters as they are now.
        weight: factor of its energy.
    """

    label: str
    entry: Entry
    weight: float

    @property
    def expression(self) -> str:
        """Its energy as Lepton reads it."""
        return expression(
            self.entry.parameters, self.entry.wall, self.weight, len(self.entry.types)
        )


@dataclass(frozen=True, eq=False)
class NativeTerms:
    """All terms of one kind.

    Attributes:
        types: what they can be.
        beads: (t, w) int64, from 0.
        rows: (t,) int64 which of the types, from 0.
    """

    types: tuple[NativeType, ...]
    beads: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True, eq=False)
class NativePrior:
    """A molecule's prior.

    Attributes:
        bond: bonds, and the pairs of repulsion and excluded volume.
        angle: angles.
        dihedral: dihedrals.
        damping: sine of an angle below which the dihedrals around it fade.
    """

    bond: NativeTerms
    angle: NativeTerms
    dihedral: NativeTerms
    damping: float

    @property
    def parametric(self) -> bool:
        """Whether there are no splines.

        LAMMPS' lepton styles read and derive every expression anew at each step, which takes
        seconds for one of a spline's length.
        """
        every = (*self.bond.types, *self.angle.types, *self.dihedral.types)
        return not any("spline" in t.entry.parameters.form for t in every)

    @property
    def fades(self) -> bool:
        """Whether dihedrals depend on the angles beside them."""
        return self.damping > 0.0 and bool(len(self.dihedral.beads))


def native_prior(prior: Prior | None, terms: Terms, types: tuple[str, ...]) -> NativePrior:
    """Look up a molecule's terms; those of weight 0 are left out.

    Args:
        prior: with its parameters as they are now; None: no terms.
        terms: of the molecule.
        types: (n,) names of the beads' types.

    Raises:
        DataError: the prior has no entry for a term, or training took it where a form has no
            meaning.
    """
    found: dict[int, list[tuple[NativeType, np.ndarray]]] = {width: [] for width in KINDS}
    if prior is not None:
        bound = prior.bind(terms, types)
        for (name, table), beads, rows in zip(
            prior.named_tables(), bound.beads, bound.rows, strict=True
        ):
            weight = prior.file.terms[name].weight
            if not len(rows) or weight == 0.0:
                continue
            forms = _forms(table, name)
            for row in np.unique(rows.numpy()):
                entry = table.entries[row]
                now = Entry(entry.types, forms[row], entry.wall, entry.samples)
                label = f"{name} {'-'.join(entry.types)}"
                kind = NativeType(label, now, weight)
                found[beads.shape[1]].append((kind, beads[rows == row].numpy()))
    of = {width: _terms(width, parts) for width, parts in found.items()}
    return NativePrior(of[2], of[3], of[4], prior.file.damping if prior is not None else 0.0)


def _forms(table: FormTable, name: str) -> list[Form]:
    try:
        return table.forms()
    except ValidationError as error:
        raise DataError(
            f"training took the {name} terms of the prior where their form has no meaning: "
            f"{error.errors()[0]['msg']}",
            remedy="train it again with a smaller learning rate, or keep the prior fixed",
        ) from error


def _terms(width: int, parts: list[tuple[NativeType, np.ndarray]]) -> NativeTerms:
    beads = [b for _, b in parts] or [np.zeros((0, width), dtype=np.int64)]
    rows = np.repeat(np.arange(len(parts)), [len(b) for _, b in parts])
    return NativeTerms(tuple(kind for kind, _ in parts), np.concatenate(beads), rows)
