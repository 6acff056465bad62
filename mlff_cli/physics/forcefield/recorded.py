"""The System that a trajectory was sampled with, made again from what the trajectory tells.

What a flow is trained on must be the energy that the frames were sampled with: `system_of` builds
it from the recorded topology and force-field files, and `check_recorded` computes the energies of
frames and compares them with those in the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import Literal

import numpy as np
import torch
from openmm import app, unit

from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.core.residues import D_AMINO_ACIDS
from mlff_cli.physics.energies import EnergyEngine
from mlff_cli.physics.openmm_structures import Molecule
from mlff_cli.physics.openmm_system import Simulated, build_system

AGREEMENT = 1e-4  # of the recorded energies' median size
ROUNDING = 5e-3  # kJ/mol beside that: positions are stored in single precision
COMPARED = 2000  # frames at most
_AT_ONCE = 128  # frames, for memory


def system_of(
    topology_pdb: str,
    forcefield: Sequence[str],
    *,
    constraints: Literal["none", "hbonds"] = "none",
    where: str = "",
) -> Simulated:
    """Build what was simulated; residue names are those of the record.

    Args:
        topology_pdb: PDB text, as `mlff sample` records it.
        forcefield: OpenMM's names or files.
        constraints: as they were.
        where: names the trajectory in messages.

    Raises:
        DataError: the text is no PDB, lacks atoms, a force-field file is not there, or the force
            field does not fit.
    """
    try:
        read = app.PDBFile(StringIO(topology_pdb))
        positions = np.asarray(read.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
    except Exception as error:  # its parser raises whatever it meets
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"the recorded topology cannot be read: {reason}",
            where=where,
            remedy="sample again with `mlff sample`, which records it",
        ) from error
    residues = list(read.topology.residues())
    names = [residue.name for residue in residues]
    for residue in residues:  # OpenMM's templates know no hand
        residue.name = D_AMINO_ACIDS.get(residue.name, residue.name)
    try:
        made = build_system(
            Molecule(read.topology, positions), forcefield, constraints=constraints, where=where
        )
    except UsageError as error:  # of an option, which here is a record
        raise DataError(
            f"the attribute forcefield names the files it was sampled with, found "
            f"{', '.join(map(repr, forcefield))}: one of them OpenMM does not have, nor is it here",
            where=where,
            remedy="put the file where the attribute says, or sample again with `mlff sample`",
        ) from error
    added = made.hydrogens_added + made.waters_added
    if added:
        raise DataError(
            f"the recorded topology must hold every atom that was simulated, {added} are missing",
            where=where,
            remedy="sample again with `mlff sample`, which records all of them",
        )
    for residue, name in zip(made.topology.residues(), names, strict=True):
        residue.name = name
    return made


def check_recorded(
    engine: EnergyEngine, positions: np.ndarray, energies: np.ndarray, *, where: str = ""
) -> float:
    """Compare energies of frames with the recorded ones: of all, or of `COMPARED` evenly spaced.

    Args:
        engine: of the system made again.
        positions: (B, N, 3) nm.
        energies: (B,) kJ/mol, as recorded.
        where: names the trajectory in messages.

    Returns:
        The largest difference, kJ/mol.

    Raises:
        DataError: they differ by more than `AGREEMENT`.
    """
    n = len(energies)
    if not n:
        return 0.0
    rows = np.linspace(0, n - 1, min(n, COMPARED)).round().astype(int)
    found = np.concatenate(
        [
            engine(torch.as_tensor(positions[part], dtype=torch.float64))[0].cpu().numpy()
            for part in np.split(rows, range(_AT_ONCE, len(rows), _AT_ONCE))
        ]
    )
    recorded = energies[rows]
    difference = np.abs(found - recorded)
    # the median: one corrupt energy must not allow the others, nor itself, to differ
    allowed = AGREEMENT * float(np.median(np.abs(recorded))) + ROUNDING
    if not (difference <= allowed).all():  # also where one is not finite
        k = int(np.argmax(np.where(np.isfinite(difference), difference, np.inf)))
        wrong = int((~(difference <= allowed)).sum())
        remedy = "the force-field files or their version are other ones: sample again, or "
        remedy += "install what the file's provenance names"
        if wrong <= len(rows) // 10:
            remedy = "the file holds energies of other positions: sample again"
        raise DataError(
            f"energies must be those of the sampling within {allowed:.3g} kJ/mol, {wrong} of the "
            f"{len(rows)} compared are not: frame {rows[k]} has {found[k]:.6g} here and "
            f"{recorded[k]:.6g} in the file",
            where=where,
            remedy=remedy,
        )
    return float(difference.max())
