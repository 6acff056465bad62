"""The energy that a flow is trained on: that of the recorded frames, checked against them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mlff_cli.families.base import Inputs
from mlff_cli.families.transport_data import Recorded
from mlff_cli.families.transport_settings import TransportSettings

if TYPE_CHECKING:
    import openmm

    from mlff_cli.physics.energies import EnergyEngine

PLATFORM = "CPU"  # of OpenMM, one thread for each worker process


def recorded_system(recorded: Recorded) -> openmm.System:
    """The System that the frames were sampled with, without constraints.

    Raises:
        DataError: a force-field file is not there, or topology and force field do not fit.
    """
    # here, because OpenMM takes a moment, and other families do without it
    from mlff_cli.physics.forcefield.recorded import system_of

    return system_of(recorded.topology_pdb, recorded.forcefield, where=_where(recorded)).system


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


def check_energies(engine: EnergyEngine, recorded: Recorded) -> None:
    """Refuse an engine that does not give the recorded energies of the frames.

    Raises:
        DataError: they differ.
    """
    from mlff_cli.physics.forcefield.recorded import check_recorded

    for ensemble in (recorded.source, recorded.target):
        where = f"{_where(recorded)}, frames of {ensemble.kelvin:g} K"
        check_recorded(engine, ensemble.positions, ensemble.energy, where=where)


def _where(recorded: Recorded) -> str:
    return ", ".join(map(str, recorded.paths))
