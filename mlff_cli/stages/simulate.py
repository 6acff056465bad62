"""`mlff simulate`: dynamics of bead molecules under a coarse-grained model.

One replica or hundreds, at one temperature or at several that exchange, with torch, OpenMM, ASE or
LAMMPS. Everything that the next step depends on is kept beside the output, so that a run that was
stopped or killed goes on exactly where the last kept state stands.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from mlff_cli.core.artifacts import alone_in, provenance
from mlff_cli.core.command_line import command_line
from mlff_cli.core.errors import DataError, NumericalError, UsageError
from mlff_cli.core.reporting import NullReporter, Reporter, Summary
from mlff_cli.core.runtime import StopRequest, interruptible
from mlff_cli.data.trajectories.h5md import H5MDTrajectory
from mlff_cli.data.trajectories.h5md_layout import ELEMENTS
from mlff_cli.data.trajectories.partial_run import PartialRun
from mlff_cli.deploy.beads.engines import ENGINES, Setting
from mlff_cli.deploy.beads.opening import open_model
from mlff_cli.deploy.beads.potential import BeadPotential
from mlff_cli.deploy.beads.start import Start, find_start
from mlff_cli.deploy.predictor import resolve_device
from mlff_cli.physics.langevin import Potential
from mlff_cli.report.sampling import (
    energy_table,
    exchange_table,
    far_from_equilibrium,
    plain_exchange,
    poor_exchange,
)
from mlff_cli.sampling.beads.dynamics import BeadDynamics
from mlff_cli.sampling.beads.guard import Guard
from mlff_cli.sampling.beads.plan import Options, Plan, make_plan
from mlff_cli.sampling.beads.run import create, labels_of, pdb_of, simulate
from mlff_cli.sampling.threaded import Threaded, torch_threads

__all__ = ["Options", "run"]

SAME_KELVIN = 1e-3  # relative


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A run that can begin.

    Attributes:
        potential: energies and forces of the molecule.
        compute: what engines call: the potential, or its machine code.
        start: the molecule, and where replicas start.
        guard: what its chains must keep to.
        kelvin: temperature that the model was trained at; None: unknown.
    """

    potential: BeadPotential
    compute: Potential
    start: Start
    guard: Guard
    kelvin: float | None


def run(
    model: Path | str,
    structure: Path | str | None,
    output: Path | str,
    options: Options = Options(),  # noqa: B008 - frozen
    reporter: Reporter | None = None,
) -> Summary:
    """Simulate.

    Args:
        model: a coarse-grained model file (.pt) or artifact (.jpt).
        structure: beads to start from: CG NPZ, H5MD, PDB; None takes the frame that the model
            keeps.
        output: H5MD to write.
        options: see `Options`.
        reporter: where messages go.

    Returns:
        What was simulated: mean energies and temperatures, exchange, speed.

    Raises:
        UsageError: an option is out of range or contradicts another, the output exists, or an
            interrupted run was asked for something else.
        DataError: a file is damaged, or its molecule is not the model's.
        MissingDependencyError: a package that the engine or the model needs is absent.
        NumericalError: a chain broke; its last frame is kept beside the output.
        InterruptedRunError: stopped by a signal; the same command continues.
    """
    reporter = reporter or NullReporter()
    given = None if structure is None else Path(structure)
    plan = make_plan(Path(model), given, Path(output), options)
    with torch_threads(plan.threads):
        prepared = _prepare(plan)
        for note in (*prepared.start.notes, *_elsewhere(plan, prepared.kelvin)):
            reporter.warning(note)
        if options.dry_run:
            return _dry_summary(plan, prepared)
        partial = PartialRun(plan.output)
        with interruptible() as stop, alone_in(partial.folder, "mlff simulate"):
            try:
                speed, dynamics = _simulate(plan, prepared, partial, stop, reporter)
                summary = _summary(plan, prepared, partial, dynamics, speed, reporter)
            except NumericalError:
                partial.remove()  # continuing would end the same way
                raise
            finally:
                if not partial.complete:
                    partial.remove()
            partial.finish(plan.output, force=options.force)
    return summary


def _simulate(
    plan: Plan, prepared: Prepared, partial: PartialRun, stop: StopRequest, reporter: Reporter
) -> tuple[float, BeadDynamics]:
    topology = prepared.start.topology
    with Threaded(prepared.compute, plan.threads) as threaded:
        dynamics = _dynamics(plan, prepared, threaded)
        if _can_go_on(plan, partial, reporter):
            dynamics.restore(partial.load())
        else:
            partial.clear()
            reporter.info(_described(plan, prepared))
            system = json.dumps(topology.plain(), indent=1, sort_keys=True)
            partial.begin(plan.config, system)
            create(plan, partial.trajectory, topology, _facts(plan, prepared))
            dynamics.start(prepared.start.positions)
            partial.save(dynamics.state())
        return simulate(plan, topology, partial, dynamics, stop, reporter), dynamics


def _can_go_on(plan: Plan, partial: PartialRun, reporter: Reporter) -> bool:
    """Whether an interrupted run is there that was asked for the same."""
    if not partial.complete:
        return False
    try:
        partial.require_same(plan.config)
        partial.load()  # a damaged state is told, or forced away, like another damage
    except (UsageError, DataError) as error:
        if not plan.options.force:
            raise
        reporter.info(f"starting anew (--force): {error.message}")
        return False
    return True


def _prepare(plan: Plan) -> Prepared:
    """The model, its molecule and the frames to start from."""
    options = plan.options
    device = resolve_device(options.device)
    model = open_model(
        plan.model,
        mode=options.mode,
        device=device,
        dtype=options.dtype,
        compiled=options.compile,
    )
    start = find_start(
        model.known, plan.structure, options.molecule, options.start, plan.n_replicas, options.seed
    )
    topology = start.topology
    try:
        guard = Guard(topology.terms.bonds, start.positions, labels_of(topology))
    except DataError as error:
        error.where = error.where or str(plan.structure or plan.model)
        raise
    potential = model.potential(topology)
    compute = model.compiled(topology) if options.compile else potential
    return Prepared(potential, compute, start, guard, model.kelvin)


def _elsewhere(plan: Plan, kelvin: float | None) -> list[str]:
    """That the model is not of the temperatures it is run at."""
    if kelvin is None or np.allclose(plan.temperatures, kelvin, rtol=SAME_KELVIN):
        return []
    return [
        f"{plan.model} was trained on frames of {kelvin:g} K: forces of beads are those of a free "
        "energy, and at other temperatures it gives no ensemble of the molecule"
    ]


def _dynamics(plan: Plan, prepared: Prepared, threaded: Threaded) -> BeadDynamics:
    options, device = plan.options, prepared.potential.device
    # machine code of one batch has its own threads, and so has a GPU
    alone = options.engine != "torch" or options.compile or device != "cpu"
    setting = Setting(
        prepared.compute if alone else threaded,
        prepared.start.topology.masses,
        plan.thermostats,
        friction=options.friction,
        timestep=plan.timestep,
        seed=options.seed,
        device=device,
    )
    return BeadDynamics(
        ENGINES[options.engine].make(setting),
        prepared.guard,
        plan.temperatures,
        options.replicas,
        plan.schedule,
        timestep=plan.timestep,
        seed=options.seed,
    )


def _described(plan: Plan, prepared: Prepared) -> str:
    """A line on what is simulated."""
    topology, n, k = prepared.start.topology, plan.n_replicas, len(plan.temperatures)
    kelvin = ", ".join(f"{t:g}" for t in plan.temperatures)
    copies = f"{n} replicas" if n > 1 else "one replica"
    return (
        f"{topology.name}: {topology.n_beads} beads, {copies} at {kelvin} K"
        f"{', exchanging' if k > 1 else ''}; {plan.options.engine} on {prepared.potential.device}"
    )


def _facts(plan: Plan, prepared: Prepared) -> dict[str, Any]:
    """Root attributes of the file."""
    options, topology = plan.options, prepared.start.topology
    inputs = [plan.model, *([plan.structure] if plan.structure else [])]
    told = dataclasses.replace(
        options,
        temperatures=tuple(plan.temperatures.tolist()),
        timestep=plan.timestep,
        threads=plan.threads,
    )
    words: list[str | Path] = ["mlff", "simulate", *inputs]
    command = command_line(words, told, Options(), flags={"temperatures": "temperature"})
    packages = {"torch": "torch", "openmm": "openmm", "ase": "ase", "lammps": "lammps"}
    used = sorted({"torch", packages[options.engine], "numpy"})
    return {
        "topology_pdb": pdb_of(topology, prepared.start.positions[0]),
        "model": str(plan.model),
        "molecule": topology.name,
        "beads": list(topology.types),
        "masses_amu": topology.masses.tolist(),
        "forcefield": "coarse-grained model",
        "mode": options.mode,
        "constraints": "none",
        "forces": "negative gradient of the model's energy",
        "positions": "centre of mass at the origin; not wrapped",
        "temperatures": plan.temperatures.tolist(),
        "replicas": options.replicas,
        "engine": options.engine,
        "integrator": ENGINES[options.engine].integrator,
        "timestep_fs": plan.timestep,
        "friction_per_ps": options.friction,
        "seed": options.seed,
        "start": options.start,
        "provenance": provenance(command, inputs, seed=options.seed, packages=used),
    }


def _dry_summary(plan: Plan, prepared: Prepared) -> Summary:
    topology, n = prepared.start.topology, plan.n_replicas
    frames = plan.schedule.n_frames * n
    width = np.dtype(ELEMENTS["position"].type("float32")).itemsize
    size = frames * topology.n_beads * 2 * 3 * width
    data = {
        "output": str(plan.output),
        "molecule": topology.name,
        "beads": topology.n_beads,
        "replicas": n,
        "temperatures": plan.temperatures.tolist(),
        "engine": plan.options.engine,
        "device": str(prepared.potential.device),
        "steps": plan.schedule.end,
        "timestep_fs": plan.timestep,
        "frames": frames,
    }
    lines = [
        _described(plan, prepared),
        f"would run {plan.schedule.end} steps of {plan.timestep:g} fs and write {frames} frames "
        f"({size / 1e6:.1f} MB) to {plan.output}",
    ]
    return Summary(data, lines=lines)


def _summary(
    plan: Plan,
    prepared: Prepared,
    partial: PartialRun,
    dynamics: BeadDynamics,
    speed: float,
    reporter: Reporter,
) -> Summary:
    """Means over the frames, and how exchange went."""
    k, topology, heat = len(plan.temperatures), prepared.start.topology, dynamics.mean_heat
    with H5MDTrajectory(partial.trajectory) as file:
        energy = file.read(np.arange(file.n_frames), positions=False).energy
        assert energy is not None
        by_temperature = energy.reshape(-1, k)
    shown = [energy_table(plan.temperatures, by_temperature, heat, topology.n_beads)]
    ns_per_day = speed * plan.timestep * 1e-6 * 86400
    data: dict[str, Any] = {
        "output": str(plan.output),
        "molecule": topology.name,
        "beads": topology.n_beads,
        "engine": plan.options.engine,
        "device": str(prepared.potential.device),
        "replicas": plan.n_replicas,
        "frames": plan.schedule.n_frames * plan.n_replicas,
        "steps": plan.schedule.end,
        "timestep_fs": plan.timestep,
        "temperatures": plan.temperatures.tolist(),
        "mean_energy_kcal_mol": by_temperature.mean(axis=0).tolist(),
        "std_energy_kcal_mol": by_temperature.std(axis=0).tolist(),
        "kinetic_temperature": heat.tolist(),
        "steps_per_second": speed,
        "ns_per_day": ns_per_day,
    }
    count = plan.schedule.n_frames * plan.options.replicas
    warning = far_from_equilibrium(plan.temperatures, heat, topology.n_beads, count)
    if warning:
        reporter.warning(warning.replace("--equilibration", "run, or a shorter --timestep"))
    if k > 1:
        counts = dynamics.exchanged()
        data["exchange"] = plain_exchange(counts)
        shown.append(exchange_table(counts))
        if warning := poor_exchange(counts):
            reporter.warning(warning)
    together = " of all replicas together" if plan.n_replicas > 1 else ""
    lines = [f"wrote {plan.output}: {speed:.3g} steps/s, {ns_per_day:.3g} ns/day{together}"]
    return Summary(data, shown, lines)
