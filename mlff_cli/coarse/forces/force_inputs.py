"""What is settled before any force is read: that the trajectories fit, and what is rigid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlff_cli.coarse.forces.constraints import Constraints, detect_constraints
from mlff_cli.coarse.forces.rigid_groups import (
    RigidGroups,
    against_record,
    auto_groups,
    listed_groups,
    no_groups,
    topology_groups,
)
from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.data.beads.cg_npz import BeadMolecule
from mlff_cli.data.beads.constraint_file import read_constraints
from mlff_cli.data.beads.force_rows import Rows, read_frames
from mlff_cli.data.beads.force_sources import ForceSources
from mlff_cli.data.temperatures import Temperatures

LOOKED_AT = 100  # frames, far apart, in which rigid distances are looked for


@dataclass(frozen=True)
class Looked:
    """What a molecule's trajectories say of themselves.

    Attributes:
        n_atoms: of the largest.
        precision: step of rounded coordinates in angstrom, the largest; 0.0 for floats.
        recorded: every "constraints" that they state.
    """

    n_atoms: int
    precision: float
    recorded: tuple[str, ...]


def check_trajectories(beads: BeadMolecule, rows: Rows, sources: ForceSources) -> Looked:
    """Refuse trajectories that lack forces, or the atoms or frames that were mapped.

    Args:
        beads: the molecule.
        rows: its frames.
        sources: the trajectories.

    Raises:
        DataError: see above; names the file.
    """
    last = int(beads.atom_index.max(initial=-1))
    n_atoms, precision, recorded = 0, 0.0, set[str]()
    for source in np.unique(rows.source).tolist():
        trajectory = sources[source]
        where = str(trajectory.path)
        if not trajectory.has_forces:
            raise DataError(
                f"the trajectory ({trajectory.format}) has no forces",
                where=where,
                remedy="write forces with the simulation, or use a format that has them",
            )
        if last >= trajectory.n_atoms:
            raise DataError(
                f"{beads.name} was mapped from atoms up to {last}, the trajectory has "
                f"{trajectory.n_atoms}",
                where=where,
                remedy="run `mlff cg-map` again with the topology of this trajectory",
            )
        beyond = int(rows.frame[rows.source == source].max())
        if beyond >= trajectory.n_frames:
            raise DataError(
                f"frame {beyond} was mapped, the trajectory has {trajectory.n_frames}",
                where=where,
                remedy="run `mlff cg-map` again",
            )
        n_atoms = max(n_atoms, trajectory.n_atoms)
        precision = max(precision, trajectory.precision)
        if "constraints" in trajectory.facts:
            recorded.add(str(trajectory.facts["constraints"]))
    return Looked(n_atoms, precision, tuple(sorted(recorded)))


def ensemble_temperature(
    rows: Rows, name: str, noise: float | None, asked: float | None
) -> tuple[float | None, list[str]]:
    """Temperature of a molecule's frames, which noise needs, and what a user must be told.

    Args:
        rows: the molecule's frames.
        name: of the molecule.
        noise: `--noise`, angstrom.
        asked: `--temperature`, K; where the set says its own, that is taken.

    Raises:
        UsageError: noise needs one temperature, and the set says several, none, or another.
    """
    found = Temperatures.of(rows.temperature)
    if len(found.kelvin) > 1:
        told = f"{name}: the frames have {len(found.kelvin)} temperatures ({found} K)"
        remedy = "choose one with `mlff cg-map --temperature T`"
        if noise is not None:
            raise UsageError(f"{told}, and noise needs one", remedy=remedy)
        return None, [f"{told}: a potential of mean force is that of one; {remedy}"]
    if noise is None:
        return None, []
    if not found.kelvin:
        if asked is None:
            raise UsageError(
                f"{name}: noise needs the temperature of the frames, which the set does not say",
                remedy="give --temperature T",
            )
        return asked, []
    if asked is not None and found.number(asked) is None:
        raise UsageError(
            f"{name}: --temperature {asked:g} contradicts the set, whose frames are at {found} K",
            remedy="leave --temperature out",
        )
    return found.kelvin[0], []


def find_rigid(
    choice: str,
    beads: BeadMolecule,
    rows: Rows,
    sources: ForceSources,
    looked: Looked,
    names: Sequence[str],
) -> RigidGroups:
    """Rigid groups of a molecule, as `--constraints` says.

    Args:
        choice: "auto", "topology", "none" or a file.
        beads: the molecule.
        rows: its frames.
        sources: the trajectories.
        looked: what they say of themselves.
        names: of all molecules of the set, for a file.

    Raises:
        DataError: the file or a trajectory is damaged.
    """
    elements, bonds = beads.elements, beads.atom_bonds
    if choice == "auto":
        detected = _detected(beads, rows, sources, looked.precision)
        return auto_groups(elements, bonds, detected, looked.recorded)
    if choice == "none":
        found = no_groups(beads.n_atoms)
    elif choice == "topology":
        found = topology_groups(elements, bonds)
    else:
        listed = read_constraints(choice, dict.fromkeys(names, looked.n_atoms))[beads.name]
        pairs = _of_molecule(listed, beads, looked.n_atoms, choice)
        found = listed_groups(beads.n_atoms, pairs, choice)
    return against_record(found, elements, bonds, looked.recorded)


def _detected(
    beads: BeadMolecule, rows: Rows, sources: ForceSources, precision: float
) -> Constraints:
    """What frames far apart, of all trajectories, show to be rigid."""
    ordered = rows.select(rows.order)
    n = len(ordered.rows)
    places = np.linspace(0, n - 1, min(n, LOOKED_AT)).round().astype(int)
    some = ordered.select(np.unique(places))
    positions, boxes = [], []
    for source in np.unique(some.source).tolist():
        frames = some.frame[some.source == source]
        for block in read_frames(sources[source], frames, beads.atom_index, positions=True):
            assert block.positions is not None
            positions.append(block.positions)
            if block.box is not None:
                boxes.append(block.box)
    return detect_constraints(
        *(np.concatenate(positions), beads.elements, beads.atom_bonds),
        box=np.concatenate(boxes) if len(boxes) == len(positions) else None,
        precision=precision,
    )


def _of_molecule(pairs: np.ndarray, beads: BeadMolecule, n_atoms: int, file: str) -> np.ndarray:
    """Pairs of a trajectory's atoms as pairs of the molecule's; solvent's are left out."""
    place = np.full(n_atoms, -1)
    place[beads.atom_index] = np.arange(beads.n_atoms)
    inside: np.ndarray = place[pairs]  # [pair, end]
    torn = np.flatnonzero((inside < 0).sum(axis=1) == 1)
    if len(torn):
        raise DataError(
            f"atoms {pairs[torn[0], 0]} and {pairs[torn[0], 1]} are constrained, but only one of "
            f"them belongs to {beads.name}",
            where=file,
            remedy="count atoms from 0, in the order of the topology",
        )
    found: np.ndarray = inside[(inside >= 0).all(axis=1)]
    return found
