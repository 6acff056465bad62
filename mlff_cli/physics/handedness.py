"""Amino acids of either hand, and terms of a force field that are right for one of them only.

    chi = (N - CA) x (C - CA) . (CB - CA),   L: chi > 0,   D: chi < 0

A mirror image has the same bonds, angles and distances, and every dihedral with the other sign.
So its energy is the same under all terms of a force field but two:

    CMAP(phi, psi)                      a map that is not the same at (-phi, -psi)
    k [1 + cos(n phi - delta)]          with a delta that is neither 0 nor pi

Both are fitted to L residues. OpenMM finds templates by atoms and bonds, which know no hand: a D
residue gets the terms of its L form without a word.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import openmm
from openmm import unit

from mlff_cli.core.errors import NumericalError, UsageError
from mlff_cli.physics.openmm_structures import Molecule
from mlff_cli.physics.openmm_system import Simulated

PHASE = 1e-3  # |sin delta| below which a torsion is the same for both hands: files round pi
SHOWN = 5  # residues named in a message


def mirrored_residues(molecule: Molecule) -> list[Any]:
    """Residues whose coordinates are those of the D form, as OpenMM has them."""
    edges = molecule.topology.getPeriodicBoxVectors()
    box = None if edges is None else np.array(unit.Quantity(edges).value_in_unit(unit.nanometer))
    found = []
    for residue in molecule.topology.residues():
        places = {atom.name: molecule.positions[atom.index] for atom in residue.atoms()}
        if not {"N", "CA", "C", "CB"} <= places.keys():
            continue
        arms = np.array([places[name] - places["CA"] for name in ("N", "C", "CB")])
        if box is not None:  # a file may have cut the residue at the box
            arms -= np.round(arms @ np.linalg.inv(box)) @ box
        if np.linalg.det(arms) < 0:
            found.append(residue)
    return found


def one_handed_residues(system: openmm.System, residue: Sequence[int]) -> set[int]:
    """Residues that have a term which a mirror changes.

    Args:
        system: with the force field's terms.
        residue: (N,) residue of every atom.
    """
    found: set[int] = set()
    for force in system.getForces():
        if isinstance(force, openmm.CMAPTorsionForce):
            for k in range(force.getNumTorsions()):
                found.add(residue[force.getTorsionParameters(k)[3]])  # CA, of phi's C N CA C
        elif isinstance(force, openmm.PeriodicTorsionForce):
            for k in range(force.getNumTorsions()):
                _, i, j, _, _, delta, strength = force.getTorsionParameters(k)
                if strength._value and abs(np.sin(delta._value)) > PHASE:
                    found |= {residue[i], residue[j]}
    return found


def require_one_hand(made: Simulated, forcefield: Sequence[str], where: str) -> None:
    """Refuse D residues whose terms are those of L residues.

    Raises:
        UsageError: there are such.
    """
    mirrored = mirrored_residues(made)
    if not mirrored:
        return
    handed = one_handed_residues(made.system, [a.residue.index for a in made.topology.atoms()])
    wrong = [f"{r.name} {r.id} (chain {r.chain.id})" for r in mirrored if r.index in handed]
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise UsageError(
            f"--forcefield {','.join(forcefield)}: its maps (CMAP) and torsions are right for L "
            f"residues only, found the D residues {', '.join(wrong[:SHOWN])}{more}",
            where=where,
            remedy="take amber14-all.xml, whose terms are the same for both hands",
        )


def require_same_hands(made: Simulated, positions: np.ndarray, where: str) -> None:
    """Refuse positions (N, 3), nm, in which a residue has become its mirror image.

    Raises:
        NumericalError: names them.
    """
    before = {r.index: r for r in mirrored_residues(made)}
    after = {r.index: r for r in mirrored_residues(dataclasses.replace(made, positions=positions))}
    changed = [(before | after)[i] for i in sorted(before.keys() ^ after.keys())]
    if changed:
        told = ", ".join(f"{r.name} {r.id} (chain {r.chain.id})" for r in changed[:SHOWN])
        more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
        raise NumericalError(
            f"minimisation has turned residues into their mirror images: {told}{more}",
            where=where,
            remedy="give a structure with hydrogens, or another --seed",
        )
