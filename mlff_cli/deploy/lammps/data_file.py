"""The data file of a bead molecule: masses, beads, and which of them the prior joins.

Units `real`, atom style `molecular`: a chain is a molecule. Beads have the IDs 1 ... n in their own
order. Beads of one type and mass share an atom type.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlff_cli.deploy.lammps.native_prior import KINDS, NativePrior
from mlff_cli.potentials.bead_topology import BeadTopology

MARGIN = 10.0  # angstrom around the beads; the box shrinks to them


@dataclass(frozen=True)
class AtomTypes:
    """Atom types of a molecule.

    Attributes:
        names: of the beads' types, as the model has them; a name may occur twice.
        masses: amu.
        of: (n,) which one a bead has, from 0.
    """

    names: tuple[str, ...]
    masses: tuple[float, ...]
    of: tuple[int, ...]


def atom_types(topology: BeadTopology) -> AtomTypes:
    """Distinct pairs of a type's name and a mass, sorted."""
    beads = list(zip(topology.types, topology.masses.tolist(), strict=True))
    kinds = sorted(set(beads))
    number = {kind: k for k, kind in enumerate(kinds)}
    names, masses = zip(*kinds, strict=True)
    return AtomTypes(names, masses, tuple(number[bead] for bead in beads))


def data_file(topology: BeadTopology, prior: NativePrior, positions: np.ndarray) -> str:
    """The file's text.

    Args:
        topology: the molecule.
        prior: its terms.
        positions: (n, 3) angstrom.
    """
    atoms = atom_types(topology)
    terms = {"Bonds": prior.bond, "Angles": prior.angle, "Dihedrals": prior.dihedral}
    lines = [f"beads of {_word(topology.name)}, units real, atom style molecular", ""]
    lines.append(f"{topology.n_beads} atoms")
    lines += [f"{len(t.beads)} {name.lower()}" for name, t in terms.items()]
    lines.append(f"{len(atoms.names)} atom types")
    lines += [
        f"{len(t.types)} {kind} types"
        for kind, t in zip(KINDS.values(), terms.values(), strict=True)
    ]
    low, high = positions.min(0) - MARGIN, positions.max(0) + MARGIN
    lines.append("")
    lines += [
        f"{a!r} {b!r} {axis}lo {axis}hi"
        for axis, a, b in zip("xyz", low.tolist(), high.tolist(), strict=True)
    ]
    lines += ["", "Masses", ""]
    lines += [
        f"{k} {mass!r}  # {_word(name)}"
        for k, (name, mass) in enumerate(zip(atoms.names, atoms.masses, strict=True), 1)
    ]
    lines += ["", "Atoms  # molecular", ""]
    lines += [
        f"{i} {chain + 1} {kind + 1} {x!r} {y!r} {z!r}"
        for i, (chain, kind, (x, y, z)) in enumerate(
            zip(topology.chains.tolist(), atoms.of, positions.tolist(), strict=True), 1
        )
    ]
    for name, t in terms.items():
        if len(t.beads):
            lines += ["", name, ""]
            lines += [
                f"{k} {row + 1} {' '.join(str(i + 1) for i in beads)}"
                for k, (row, beads) in enumerate(
                    zip(t.rows.tolist(), t.beads.tolist(), strict=True), 1
                )
            ]
    return "\n".join(lines) + "\n"


def _word(name: str) -> str:
    """A name that cannot begin a comment or a new line."""
    return " ".join(name.replace("#", " ").split())
