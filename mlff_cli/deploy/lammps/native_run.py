"""Energy and forces of a written folder, from LAMMPS' own styles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mlff_cli.deploy.lammps.input_script import SCRIPT
from mlff_cli.deploy.lammps.library import lammps_errors, lammps_instance


def native_energies(
    folder: Path, frames: np.ndarray, variables: Mapping[str, str]
) -> tuple[np.ndarray, np.ndarray]:
    """Run a folder's script for no step, and compute frames with what it has set up.

    Args:
        folder: as `write_lammps_folder` made it.
        frames: (T, n, 3) angstrom.
        variables: of the script, as {"ml": "no", "prior": "lepton"}.

    Returns:
        Potential energies (T,) in kcal/mol and forces (T, n, 3) in kcal/mol/angstrom.

    Raises:
        MissingDependencyError: LAMMPS is not installed.
        NumericalError: LAMMPS stopped; its words.
    """
    given = {"folder": str(folder), "steps": "0", **variables}
    arguments = [word for name, value in given.items() for word in ("-var", name, value)]
    energies, forces = [], []
    with lammps_instance(*arguments) as lammps, lammps_errors(str(folder / SCRIPT)):
        lammps.file(str(folder / SCRIPT))
        lammps.command("unfix thermostat")  # its noise is no part of the potential
        n = frames.shape[1]
        for frame in frames:
            ids = lammps.numpy.extract_atom("id")[:n].ravel() - 1
            lammps.numpy.extract_atom("x")[:n] = frame[ids]
            lammps.command("run 0 post no")
            ids = lammps.numpy.extract_atom("id")[:n].ravel() - 1
            here = np.empty((n, 3))
            here[ids] = lammps.numpy.extract_atom("f")[:n]
            energies.append(lammps.get_thermo("pe"))
            forces.append(here)
    return np.array(energies), np.stack(forces)
