"""The system of a sampling run: built, minimised, and the file that its frames go to."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import openmm

from mlff_cli.core.artifacts import provenance
from mlff_cli.core.command_line import command_line
from mlff_cli.core.compilers import check_compiler
from mlff_cli.core.errors import DataError, InterruptedRunError, NumericalError, UsageError
from mlff_cli.core.reporting import Reporter
from mlff_cli.core.residues import D_AMINO_ACIDS
from mlff_cli.core.runtime import StopRequest
from mlff_cli.core.units import KCAL_MOL, KJ_MOL
from mlff_cli.core.workers import available_cores
from mlff_cli.data.trajectories.h5md_writer import create_h5md
from mlff_cli.data.trajectories.partial_run import PartialRun
from mlff_cli.data.trajectories.peptide import Peptide, build_peptide
from mlff_cli.physics.handedness import require_one_hand, require_same_hands
from mlff_cli.physics.mapped_exchange import MappedExchange
from mlff_cli.physics.md_schedule import FS
from mlff_cli.physics.minimisation import minimise
from mlff_cli.physics.openmm_structures import (
    Molecule,
    chain_molecule,
    read_structure,
    rename_residues,
    topology_pdb,
)
from mlff_cli.physics.openmm_system import Simulated, build_system
from mlff_cli.physics.replica_ensemble import Ensemble
from mlff_cli.sampling.plan import Options, Plan

if TYPE_CHECKING:
    from mlff_cli.physics.batched_ensemble import BatchedEnsemble

AnyEnsemble: TypeAlias = "Ensemble | BatchedEnsemble"

FORCES = (
    "negative gradient of the potential energy, as OpenMM reports it; constraint forces are not "
    "included"
)
WHERE = {
    True: "unwrapped, molecules whole",
    False: "near the origin: the centre of mass is put back there after every frame",
}
INTEGRATOR = "LangevinMiddleIntegrator"
BATCHED_INTEGRATOR = "BAOAB in its leap-frog form, as LangevinMiddleIntegrator"
_WRITTEN = ("position", "force", "potential_energy", "temperature", "replica")


def build(plan: Plan) -> Simulated:
    """The structure with everything that is missing, and its force field."""
    options = plan.options
    peptide: Peptide | None = None
    if options.peptide is not None:
        peptide = build_peptide(options.peptide, options.seed)
        # OpenMM's templates know no hand: D residues are simulated under their L names
        names = [D_AMINO_ACIDS.get(name, name) for name in peptide.residues]
        molecule: Molecule = chain_molecule(
            names,
            peptide.names,
            peptide.numbers,
            peptide.residue,
            peptide.bonds,
            peptide.positions,
        )
    else:
        assert plan.system is not None
        molecule = read_structure(plan.system)
    where = str(plan.system or f"--peptide {options.peptide}")
    try:
        made = build_system(
            molecule,
            options.forcefield,
            constraints=options.constraints,
            ph=options.ph,
            padding=options.padding,
            seed=options.seed,
            where=where,
        )
    except DataError as error:
        if peptide is None or len(peptide.residues) > 1:
            raise
        raise UsageError(  # the Amber force fields have no template that ends on both sides
            error.message,
            where=error.where,
            remedy=f"cap it: --peptide ACE-{peptide.residues[0]}-NME",
        ) from error
    if peptide is not None:
        rename_residues(made.topology, peptide.residues)
    require_one_hand(made, options.forcefield, where)
    return made


def prepare(
    plan: Plan,
    partial: PartialRun,
    stop: StopRequest,
    reporter: Reporter,
    mapped: MappedExchange | None = None,
) -> openmm.System:
    """What is simulated: of the interrupted run, or made now with everything the run needs."""
    if partial.complete:
        try:
            partial.require_same(plan.config)
            partial.load()  # a damaged state is told, or forced away, like another damage
            return openmm.XmlSerializer.deserialize(partial.system.read_text())
        except (UsageError, DataError) as error:
            if not plan.options.force:
                raise
            reporter.info(f"starting anew (--force): {error.message}")
    partial.clear()
    made = build(plan)
    check_simulable(plan, made)
    if mapped is not None:
        check_mapped(mapped, made)
    reporter.info(described(plan, made))
    context = plan.engine.context(made.system)
    positions, before, after = minimise(made, context, lambda: stop.requested)
    if stop.requested:
        raise interrupted(plan, partial, stop, 0)
    if not (np.isfinite(positions).all() and math.isfinite(after)):
        raise NumericalError(
            "the energy is not finite, before or after minimisation",
            where=str(plan.system or plan.options.peptide),
            remedy="look for overlapping atoms in the structure",
        )
    require_same_hands(made, positions, str(plan.system or plan.options.peptide))
    told = [f"{energy * KJ_MOL / KCAL_MOL:.6g}" for energy in (before, after)]
    reporter.info(f"minimised from {told[0]} to {told[1]} kcal/mol")
    start = Simulated(
        made.topology,
        positions,
        made.system,
        made.solvent,
        made.hydrogens_added,
        made.waters_added,
    )
    partial.begin(plan.config, openmm.XmlSerializer.serialize(made.system))
    create_h5md(
        partial.trajectory,
        (*_WRITTEN, *(("edges",) if made.periodic else ())),
        plan.schedule.n_frames * plan.n_replicas,
        made.numbers,
        bonds=made.bonds,
        attrs=_facts(plan, start),
        tables=tables(plan),
    )
    ensemble = make_ensemble(plan, made.system, mapped)
    ensemble.start(positions)
    partial.save(ensemble.state())
    return made.system


def check_mapped(mapped: MappedExchange, made: Simulated) -> None:
    """Refuse what a map does not know.

    Raises:
        UsageError: the map is of another molecule, or the system has a box.
    """
    if made.periodic:
        raise UsageError(
            "--flow moves one molecule without a box, found explicit solvent",
            remedy="sample with the implicit solvent that the flow was trained with",
        )
    mapped.move.require(made.numbers, made.bonds)


def check_simulable(plan: Plan, made: Simulated) -> None:
    """Refuse what the engine cannot compute.

    Raises:
        UsageError: naming the force.
    """
    if plan.batched:
        from mlff_cli.physics.forcefield import ForceField

        ForceField.from_system(made.system)


def make_ensemble(
    plan: Plan, system: openmm.System, mapped: MappedExchange | None = None
) -> AnyEnsemble:
    """The replicas of a run, not yet at any state."""
    if plan.batched:
        return _batched(plan, system, mapped)
    return Ensemble(
        plan.engine,
        system,
        plan.temperatures,
        plan.schedule,
        friction=plan.options.friction,
        timestep=plan.timestep,
        seed=plan.options.seed,
        mapped=mapped,
    )


def _batched(plan: Plan, system: openmm.System, mapped: MappedExchange | None) -> BatchedEnsemble:
    # here, because torch takes a moment, and the OpenMM engine does without it
    import torch

    from mlff_cli.physics.batched_ensemble import BatchedEnsemble
    from mlff_cli.physics.forcefield import ForceField

    options = plan.options
    field = ForceField.from_system(system, getattr(torch, options.dtype))
    if options.compile:
        check_compiler(torch.device(options.device).type, "a force field")
    return BatchedEnsemble(
        field.to(options.device),
        plan.temperatures,
        plan.schedule,
        copies=options.replicas,
        friction=options.friction,
        timestep=plan.timestep,
        seed=options.seed,
        threads=available_cores(),
        compile=options.compile,
        mapped=mapped,
    )


def tables(plan: Plan, ensemble: AnyEnsemble | None = None) -> dict[str, np.ndarray]:
    """What stands beside the frames, or the room for it."""
    n = len(plan.temperatures)
    pairs = np.zeros(n - 1, dtype="int64")
    found = {
        "temperatures": plan.temperatures,
        "kinetic_temperature": ensemble.mean_heat if ensemble else np.zeros(n),
    }
    if n > 1:
        ladder = ensemble.ladder if ensemble else None
        found |= {
            "exchange/attempted": ladder.attempted if ladder else pairs,
            "exchange/accepted": ladder.accepted if ladder else pairs,
            "exchange/trips": ladder.trips if ladder else np.zeros(plan.n_replicas, dtype="int64"),
        }
    return found


def reached(plan: Plan, step: int) -> str:
    """How far a step is, as the beginning of a sentence: `3 of 10 frames are`."""
    schedule = plan.schedule
    if 0 < step < schedule.equilibration:
        done, whole = (n * plan.timestep / FS for n in (step, schedule.equilibration))
        return f"{done:g} of {whole:g} ps of the equilibration are"
    return f"{schedule.frames_before(step)} of {schedule.n_frames} frames are"


def interrupted(
    plan: Plan, partial: PartialRun, stop: StopRequest, kept: int
) -> InterruptedRunError:
    """What a run that was asked to stop ends with; `kept` is the step that it will go on from."""
    name = stop.signal.name if stop.signal else "a signal"
    return InterruptedRunError(
        f"stopped by {name}, {reached(plan, kept)} kept",
        where=str(partial.folder),
        remedy="run the same command again to continue",
    )


def _facts(plan: Plan, made: Simulated) -> dict[str, Any]:
    """Root attributes of the file."""
    options = plan.options
    inputs = [Path(n) for n in options.forcefield if Path(n).is_file()]
    inputs += [path for path in (plan.system, options.flow) if path]
    told = dataclasses.replace(  # with what was chosen where the options leave it open
        options,
        temperatures=tuple(plan.temperatures.tolist()),
        timestep=plan.timestep,
        platform=options.platform if plan.batched else plan.engine.platform,
    )
    words = ["mlff", "sample", *([str(plan.system)] if plan.system else [])]
    command = command_line(words, told, Options(), flags={"temperatures": "temperature"})
    packages = (
        "openmm",
        "numpy",
        *(("torch",) if plan.batched or options.flow else ()),
        *(("rdkit",) if options.peptide else ()),
    )
    return {
        "topology_pdb": topology_pdb(made),
        "forcefield": list(options.forcefield),
        "constraints": options.constraints,
        "rigid_water": options.constraints == "hbonds",
        "forces": FORCES,
        "positions": WHERE[made.periodic],
        "solvent": made.solvent,
        **({} if made.density is None else {"density_g_cm3": made.density}),
        "temperatures": plan.temperatures.tolist(),
        "integrator": BATCHED_INTEGRATOR if plan.batched else INTEGRATOR,
        "timestep_fs": plan.timestep,
        "friction_per_ps": options.friction,
        "centre_of_mass_motion": "not removed",
        "platform": plan.platform,
        "replicas_per_temperature": options.replicas,
        "repeats_bit_for_bit": int(plan.exact),
        "seed": options.seed,
        "provenance": provenance(command, inputs, seed=options.seed, packages=packages),
    }


def described(plan: Plan, made: Simulated) -> str:
    """A line on what is simulated."""
    hydrogens, waters = made.hydrogens_added, made.waters_added
    added = [f"{hydrogens} hydrogens"] if hydrogens else []
    added += [f"{waters} waters and ions"] if waters else []
    told = f"{made.system.getNumParticles()} atoms, solvent: {made.solvent}"
    told += "" if made.density is None else f", {made.density:.3f} g/cm3 at constant volume"
    return f"{told}; added {' and '.join(added) or 'nothing'}; platform {plan.platform}"
