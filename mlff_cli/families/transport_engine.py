"""The energy that a flow is trained on: that of the recorded frames, checked against them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mlff_cli.core.errors import DataError
from mlff_cli.families.base import Inputs
from mlff_cli.families.transport_data import Ensemble, Recorded
from mlff_cli.families.transport_settings import TransportSettings

if TYPE_CHECKING:
    import openmm

    from mlff_cli.physics.energies import EnergyEngine

PLATFORM = "CPU"  # of OpenMM, one thread for each worker process
CHECKED = 16  # frames of each temperature
SAME = 1e-4  # of the recorded energies' size


def system_of(recorded: Recorded) -> openmm.System:
    """The System that the frames were sampled with, without constraints."""
    # here, because OpenMM takes a moment, and other families do without it
    from openmm import app, unit

    from mlff_cli.physics.openmm_structures import Molecule
    from mlff_cli.physics.openmm_system import build_system

    pdb = app.PDBFile(StringIO(recorded.topology_pdb))
    positions = np.asarray(pdb.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
    where = ", ".join(map(str, recorded.paths))
    return build_system(Molecule(pdb.topology, positions), recorded.forcefield, where=where).system


def engine_of(
    settings: TransportSettings, system: openmm.System, inputs: Inputs
) -> tuple[EnergyEngine, str, Callable[[], None]]:
    """What computes energies, by the name of the configuration.

    Returns:
        The engine, what it is in words, and what ends it.

    Raises:
        UsageError: the torch force field knows no counterpart of a force; the message names it.
        MissingDependencyError: OpenMM's platform does not work here.
    """
    if settings.energy == "torch":
        from mlff_cli.physics.energies import TorchEnergy
        from mlff_cli.physics.forcefield import ForceField

        field: Any = ForceField.from_system(system, inputs.dtype).to(inputs.device)
        return TorchEnergy(field), f"torch, on {inputs.device}", lambda: None
    from mlff_cli.physics.openmm_energies import OpenMMEnergy

    n = settings.openmm_workers or max(1, inputs.world.cores)
    engine = OpenMMEnergy(system, n, PLATFORM)
    return engine, f"OpenMM ({PLATFORM}), {n} worker processes", engine.close


def check_energies(
    engine: EnergyEngine,
    ensembles: Sequence[Ensemble],
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """Refuse an engine that does not give the recorded energies.

    Raises:
        DataError: with the first temperature that differs, and by how much.
    """
    for ensemble in ensembles:
        rows = np.linspace(0, len(ensemble) - 1, CHECKED).round().astype(int)
        x = torch.from_numpy(ensemble.positions[rows]).to(device, dtype)
        U = engine(x)[0].double().cpu().numpy()
        told = ensemble.energy[rows]
        scale = max(1.0, float(np.abs(told).mean()))
        worst = float(np.abs(U - told).max()) / scale
        if not worst <= SAME:
            row = int(np.abs(U - told).argmax())
            raise DataError(
                f"energies of the force field must be those recorded, to {SAME:g}; found "
                f"{U[row]:.4f} where {told[row]:.4f} kJ/mol is recorded (at {ensemble.kelvin:g} K, "
                f"frame {rows[row]} of them)",
                remedy="the force field's files changed since: sample again with this version",
            )
