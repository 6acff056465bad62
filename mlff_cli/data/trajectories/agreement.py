"""What is looked at when a trajectory is opened, in its first frame: topology, units, magnitudes.

| what                  | with             | else                                          |
|-----------------------|------------------|-----------------------------------------------|
| number of atoms       | topology         | DataError                                     |
| elements, atom by atom| topology and a file that has elements | DataError                |
| lengths of bonds      | topology         | DataError: atoms of another order or units    |
| nearest atoms         | no topology      | note: other units                             |
| size of forces        | forces           | note: other units                             |

The order of atoms cannot be seen in formats without elements (TRR, DCD, XTC): bonds that are bonds
in the first frame are what speaks for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import mdtraj
import numpy as np
from scipy.spatial import cKDTree

from mlff_cli.core.elements import SYMBOLS
from mlff_cli.core.errors import DataError
from mlff_cli.data.trajectories.topology_file import atomic_numbers, bonded_pairs, read_topology
from mlff_cli.data.trajectories.whole import BondTree

if TYPE_CHECKING:
    from mlff_cli.data.trajectories.frames import Trajectory

BOND = (0.5, 3.0)  # angstrom: shorter or longer ones are none (H-H 0.74, metals 2.6)
MANY = 0.02  # of the bonds: more that are none make another molecule of it
FORCE = (3.0, 200.0)  # kcal/mol/angstrom, RMS per component; proteins at 300 K have 15 to 40
APART = (0.6, 2.2)  # angstrom, median distance of an atom to its nearest


def check(trajectory: Trajectory, top: Path | str | mdtraj.Topology | None) -> None:
    """Look at the first frame; set `topology`, and add to `notes` and `facts`.

    Raises:
        DataError: see the module.
    """
    notes = trajectory.notes
    trajectory.facts["checked"] = []
    if isinstance(top, Path | str):
        file = read_topology(top)
        notes += file.notes
        _same_atoms(trajectory, file.topology, str(top))
        trajectory.topology = file.topology
    elif top is not None:
        _same_atoms(trajectory, top, "the topology")
        trajectory.topology = top
    frame = trajectory.read(np.array([0]), positions=True, forces=trajectory.has_forces)
    if frame.positions is not None:
        x = np.asarray(frame.positions, "float64")
        if trajectory.topology is not None:
            _bonds(trajectory, x, frame.box, str(top) if isinstance(top, Path | str) else None)
        else:
            _spacing(trajectory, x[0], notes)
    if frame.forces is not None:
        _forces(trajectory, frame.forces, notes)


def _same_atoms(trajectory: Trajectory, topology: mdtraj.Topology, name: str) -> None:
    checked = trajectory.facts["checked"]
    n = topology.n_atoms
    if n != trajectory.n_atoms:
        protein = sum(1 for a in topology.atoms if a.residue.is_protein)
        dry = sum(1 for a in topology.atoms if not a.residue.is_water)
        part = {protein: "protein", dry: "part without water"}.get(trajectory.n_atoms)
        hint = f"; its {part} has {trajectory.n_atoms}: write that alone" if part else ""
        raise DataError(
            f"topology and trajectory must have the same atoms, found {n} in {name} and "
            f"{trajectory.n_atoms} in the trajectory",
            where=str(trajectory.path),
            remedy=f"give a topology of the atoms that were saved{hint}",
        )
    checked.append("number of atoms")
    theirs = getattr(trajectory, "numbers", None)
    if theirs is None and trajectory.topology is not None:
        theirs = atomic_numbers(trajectory.topology)
    ours = atomic_numbers(topology)
    if theirs is None or not theirs.any():
        return
    wrong = np.flatnonzero((ours != theirs) & (ours > 0))
    if len(wrong):
        i = int(wrong[0])
        raise DataError(
            f"topology and trajectory must have the same elements, {len(wrong)} of {n} differ: "
            f"atom {i} (counted from 0) is {topology.atom(i)} in {name} and "
            f"{_symbol(theirs[i])} in the trajectory",
            where=str(trajectory.path),
            remedy="give the topology in the trajectory's order of atoms",
        )
    checked.append("elements")


def _symbol(z: Any) -> str:
    return SYMBOLS[z] if 0 < z < len(SYMBOLS) else f"number {z}"


def _bonds(trajectory: Trajectory, x: np.ndarray, box: np.ndarray | None, name: str | None) -> None:
    """Bonds of the topology must be bonds in the first frame."""
    topology = trajectory.topology
    assert topology is not None
    pairs = bonded_pairs(topology)
    if not len(pairs):
        return
    whole = BondTree(topology.n_atoms, pairs).make_whole(x, box)[0]
    lengths = np.linalg.norm(whole[pairs[:, 0]] - whole[pairs[:, 1]], axis=1)
    wrong = np.flatnonzero((lengths < BOND[0]) | (lengths > BOND[1]))
    if len(wrong) > MANY * len(pairs):
        i, j = pairs[wrong[0]].tolist()
        raise DataError(
            f"topology and trajectory do not fit: {len(wrong)} of {len(pairs)} bonds are not "
            f"{BOND[0]} to {BOND[1]} angstrom long in the first frame, the first is "
            f"{topology.atom(i)} - {topology.atom(j)} with {lengths[wrong[0]]:.3g}",
            where=f"{trajectory.path}" + (f" with {name}" if name else ""),
            remedy="give the topology in the trajectory's order of atoms, and check the unit of "
            "the positions",
        )
    trajectory.facts["checked"].append("lengths of bonds in the first frame")


def _spacing(trajectory: Trajectory, x: np.ndarray, notes: list[str]) -> None:
    if len(x) < 2:
        return
    nearest = float(np.median(cKDTree(x).query(x, k=2)[0][:, 1]))
    if not APART[0] <= nearest <= APART[1]:
        notes.append(
            f"{trajectory.path}: atoms of the first frame are {nearest:.3g} angstrom from their "
            f"nearest (median; molecules have {APART[0]} to {APART[1]}): check the unit"
        )


def _forces(trajectory: Trajectory, forces: np.ndarray, notes: list[str]) -> None:
    rms = float(np.sqrt(np.mean(np.square(np.asarray(forces, "float64")))))
    if not FORCE[0] <= rms <= FORCE[1]:
        notes.append(
            f"{trajectory.path}: forces of the first frame have an RMS of {rms:.3g} "
            f"kcal/mol/angstrom per component (all-atom MD has {FORCE[0]:g} to {FORCE[1]:g}): "
            "check their unit; kJ/mol/nm read so are 42 times too large, eV/angstrom 23 times "
            "too small"
        )
