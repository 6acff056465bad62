"""`mlff sample`: molecular dynamics with OpenMM, written with forces.

One temperature is a plain Langevin simulation, several are replica exchange. Everything that the
next step depends on is kept beside the output, so that a run that was stopped or killed goes on
exactly where the last kept state stands.
"""

from __future__ import annotations

import dataclasses
import math
import time as clock
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openmm

from mlff_cli.core.artifacts import alone_in, check_writable, provenance, sha256, version
from mlff_cli.core.errors import InterruptedRunError, NumericalError, UsageError
from mlff_cli.core.reporting import NullReporter, Reporter, Summary
from mlff_cli.core.runtime import StopRequest, interruptible
from mlff_cli.core.workers import available_cores
from mlff_cli.data.h5md import ELEMENTS, H5MDTrajectory
from mlff_cli.data.h5md_writer import H5MDWriter, create_h5md
from mlff_cli.data.partial_run import PartialRun
from mlff_cli.data.peptide import MIRRORED, Peptide, build_peptide
from mlff_cli.physics.md_schedule import Schedule, make_schedule
from mlff_cli.physics.molecular_dynamics import Engine, choose_engine
from mlff_cli.physics.openmm_system import (
    Molecule,
    Simulated,
    build_system,
    chain_molecule,
    minimise,
    read_structure,
    rename_residues,
    topology_pdb,
)
from mlff_cli.physics.replica_ensemble import Ensemble
from mlff_cli.report.sampling import energy_table, exchange_table, plain_exchange, poor_exchange

TIMESTEPS = {"none": 1.0, "hbonds": 2.0}  # fs
SAVE_SECONDS = 30.0  # at most this much work is lost by a kill -9, or one interval
FORCES = (
    "negative gradient of the potential energy, as OpenMM reports it; constraint forces are not "
    "included"
)
WHERE = {
    True: "unwrapped: molecules are whole and may leave the box",
    False: "near the origin: the centre of mass is put back there after every frame",
}
INTEGRATOR = "LangevinMiddleIntegrator"
HOTTEST = 5000.0  # K
_WRITTEN = ("position", "force", "potential_energy", "temperature", "replica")


@dataclasses.dataclass(frozen=True)
class Options:
    """What to simulate and how.

    Attributes:
        temperatures: in K; several are replica exchange.
        peptide: sequence to build instead of reading a structure, see `data.peptide`.
        forcefield: OpenMM's force-field files, see `physics.openmm_system`.
        constraints: "hbonds": bonds to hydrogen and water are rigid; "none": nothing is.
        time: production, ps.
        equilibration: before it, ps.
        timestep: fs; None: 1 without constraints, 2 with them.
        interval: between frames, ps.
        friction: 1/ps.
        exchange_interval: between exchanges, ps.
        padding: nm of explicit water around the solute, where water is added.
        ph: decides the protonation of added hydrogens.
        platform: OpenMM's name; "auto": the fastest here.
        threads: of one replica on the CPU. More than one is faster for large systems, but no two
            runs are the same to the last bit.
        engine: "openmm".
        seed: of everything that is random.
        force: replace an existing output, and an interrupted run that was asked for something else.
        dry_run: say what would be simulated, write nothing.
    """

    temperatures: tuple[float, ...] = (300.0,)
    peptide: str | None = None
    forcefield: tuple[str, ...] = ("amber14-all.xml", "implicit/obc2.xml")
    constraints: Literal["none", "hbonds"] = "none"
    time: float = 100.0
    equilibration: float = 10.0
    timestep: float | None = None
    interval: float = 1.0
    friction: float = 1.0
    exchange_interval: float = 1.0
    padding: float = 1.0
    ph: float = 7.0
    platform: str = "auto"
    threads: int = 1
    engine: str = "openmm"
    seed: int = 0
    force: bool = False
    dry_run: bool = False


@dataclasses.dataclass(frozen=True)
class _Plan:
    """A checked run.

    Attributes:
        temperatures: (K,) ascending.
        timestep: fs.
        config: what must be the same to continue.
    """

    system: Path | None
    output: Path
    options: Options
    temperatures: np.ndarray
    timestep: float
    schedule: Schedule
    engine: Engine
    config: dict[str, Any]


def run(
    system: Path | None, output: Path, options: Options, reporter: Reporter | None = None
) -> Summary:
    """Simulate.

    Args:
        system: PDB or mmCIF file; None with `options.peptide`.
        output: H5MD to write.
        options: see `Options`.
        reporter: where messages go.

    Returns:
        What was simulated: means, exchange statistics, speed.

    Raises:
        UsageError: an option is out of range or contradicts another, a force field is unknown, the
            output exists, or an interrupted run was asked for something else.
        DataError: the structure is malformed, or a residue has no template.
        NumericalError: the molecule exploded.
        InterruptedRunError: stopped by a signal; the same command continues.
    """
    reporter = reporter or NullReporter()
    plan = _plan(system, output, options)
    if options.dry_run:
        return _dry_summary(plan, _build(plan))
    partial = PartialRun(output)
    with interruptible() as stop, alone_in(partial.folder, "mlff sample"):
        try:
            model = _prepare(plan, partial, stop, reporter)
            ensemble = _ensemble(plan, model)
            ensemble.restore(partial.load())
            speed = _simulate(plan, partial, ensemble, stop, reporter)
            summary = _summary(plan, partial, ensemble, speed, reporter)
        except NumericalError:
            if plan.engine.exact:  # continuing would end the same way
                partial.remove()
            raise
        finally:
            if not partial.complete:
                partial.remove()
        partial.finish(output, force=options.force)
    return summary


def _plan(system: Path | None, output: Path, options: Options) -> _Plan:
    """Refuse what cannot be done before any work is."""
    if options.engine != "openmm":
        raise UsageError(
            f"--engine: 'openmm' is the engine there is, found {options.engine!r}",
            remedy="a batched torch engine is planned; leave the option out",
        )
    if (system is None) == (options.peptide is None):
        raise UsageError(
            "either a structure or --peptide is needed, found "
            + ("neither" if system is None else "both"),
            remedy="mlff sample FILE.pdb -o TRAJ.h5, or mlff sample --peptide ACE-ALA-NME -o ...",
        )
    if options.constraints not in TIMESTEPS:
        raise UsageError(
            f"--constraints must be {' or '.join(TIMESTEPS)}, found {options.constraints!r}"
        )
    temperatures = np.array(sorted(options.temperatures), dtype="float64")
    if not len(temperatures) or not ((temperatures > 0) & (temperatures <= HOTTEST)).all():
        shown = ", ".join(f"{t:g}" for t in options.temperatures) or "none"
        raise UsageError(
            f"--temperature must be above 0 and at most {HOTTEST:g} K, found {shown}",
            remedy="give one temperature, or several separated by commas",
        )
    if (np.diff(temperatures) == 0).any():
        raise UsageError(
            f"--temperature: every one may be given once, found {options.temperatures}"
        )
    _in_range("friction", options.friction, 1e-6, 1e4, "1/ps")
    _in_range("ph", options.ph, 0.0, 14.0, "")
    _in_range("padding", options.padding, 0.1, 20.0, "nm")
    if options.threads < 1 or options.seed < 0:
        raise UsageError(
            "--threads must be at least 1 and --seed at least 0, "
            f"found {options.threads} and {options.seed}"
        )
    timestep = TIMESTEPS[options.constraints] if options.timestep is None else options.timestep
    schedule = make_schedule(
        time=options.time,
        equilibration=options.equilibration,
        interval=options.interval,
        exchange=options.exchange_interval if len(temperatures) > 1 else None,
        timestep=timestep,
    )
    local = [Path(name) for name in options.forcefield if Path(name).is_file()]
    check_writable(output, force=options.force, inputs=[*([system] if system else []), *local])
    engine = choose_engine(options.platform, options.threads)
    config = {
        "system": None if system is None else sha256(system),
        **{name: _plain(value) for name, value in dataclasses.asdict(options).items()},
        "temperatures": temperatures.tolist(),
        "timestep": timestep,
        "platform": engine.platform,
        "forcefield": [
            f"{name} {sha256(name)}" if Path(name).is_file() else name
            for name in options.forcefield
        ],
        "openmm": version("openmm"),
    }
    for name in ("force", "dry_run"):
        del config[name]
    return _Plan(system, output, options, temperatures, timestep, schedule, engine, config)


def _in_range(name: str, value: float, low: float, high: float, unit: str) -> None:
    if not low <= value <= high:
        raise UsageError(f"--{name} must be {low:g} to {high:g} {unit}, found {value:g}".rstrip())


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _build(plan: _Plan) -> Simulated:
    """The structure with everything that is missing, and its force field."""
    options = plan.options
    peptide: Peptide | None = None
    if options.peptide is not None:
        peptide = build_peptide(options.peptide, options.seed)
        # OpenMM's templates know no hand: D residues are simulated under their L names
        names = [MIRRORED.get(name, name) for name in peptide.residues]
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
    made = build_system(
        molecule,
        options.forcefield,
        constraints=options.constraints,
        ph=options.ph,
        padding=options.padding,
        seed=options.seed,
        where=str(plan.system or f"--peptide {options.peptide}"),
    )
    if peptide is not None:
        rename_residues(made.topology, peptide.residues)
    return made


def _prepare(
    plan: _Plan, partial: PartialRun, stop: StopRequest, reporter: Reporter
) -> openmm.System:
    """What is simulated: of the interrupted run, or made now with everything the run needs."""
    if partial.complete:
        try:
            partial.require_same(plan.config)
            return openmm.XmlSerializer.deserialize(partial.system.read_text())
        except UsageError as error:
            if not plan.options.force:
                raise
            reporter.info(f"starting anew (--force): {error.message}")
    partial.clear()
    made = _build(plan)
    reporter.info(_described(plan, made))
    context = plan.engine.context(made.system)
    positions, before, after = minimise(made, context, lambda: stop.requested)
    if stop.requested:
        raise _interrupted(plan, partial, stop, 0)
    if not (np.isfinite(positions).all() and math.isfinite(after)):
        raise NumericalError(
            f"the energy is {before:.3g} kJ/mol before minimisation and not finite after it",
            where=str(plan.system or plan.options.peptide),
            remedy="look for overlapping atoms in the structure",
        )
    reporter.info(f"minimised from {before:.6g} to {after:.6g} kJ/mol")
    start = Simulated(
        made.topology,
        positions,
        made.system,
        made.solvent,
        made.hydrogens_added,
        made.waters_added,
    )
    partial.begin(plan.config, openmm.XmlSerializer.serialize(made.system))
    n = len(plan.temperatures)
    create_h5md(
        partial.trajectory,
        (*_WRITTEN, *(("edges",) if made.periodic else ())),
        plan.schedule.n_frames * n,
        made.numbers,
        bonds=made.bonds,
        attrs=_facts(plan, start),
        tables=_tables(plan),
    )
    ensemble = _ensemble(plan, made.system)
    ensemble.start(positions)
    partial.save(ensemble.state())
    return made.system


def _ensemble(plan: _Plan, system: openmm.System) -> Ensemble:
    return Ensemble(
        plan.engine,
        system,
        plan.temperatures,
        plan.schedule,
        friction=plan.options.friction,
        timestep=plan.timestep,
        seed=plan.options.seed,
    )


def _simulate(
    plan: _Plan, partial: PartialRun, ensemble: Ensemble, stop: StopRequest, reporter: Reporter
) -> float:
    """Go to the end; returns the speed of one replica in ns/day."""
    schedule, n = plan.schedule, len(plan.temperatures)
    first, kept = ensemble.step, ensemble.step
    done = schedule.frames_before(first)
    if first:
        reporter.info(f"continuing: {done} of {schedule.n_frames} frames are there")
    parallel = max(1, min(n, available_cores() // plan.options.threads))
    idle = available_cores() - parallel * plan.options.threads
    if idle > 0 and plan.engine.platform == "CPU":
        reporter.info(
            f"{idle} of {available_cores()} cores are idle: --threads uses them on a large "
            "system, at the price of results that do not repeat to the last bit"
        )
    begun = saved = clock.monotonic()
    told = f"sampling at {n} temperatures" if n > 1 else "sampling"

    def frames(arrays: Mapping[str, np.ndarray], row: int) -> None:
        writer.write(row, {k: v for k, v in arrays.items() if writer.has(k)})

    with (
        H5MDWriter(partial.trajectory) as writer,
        ThreadPoolExecutor(parallel, thread_name_prefix="replica") as pool,
        reporter.progress(schedule.n_frames, told, "frames") as bar,
    ):
        bar.skip(done)
        while ensemble.step < schedule.end:
            try:
                reached = ensemble.advance(pool, stop, frames)
            except NumericalError as error:
                raise _exploded(plan, ensemble, error) from error
            now = clock.monotonic()
            last = ensemble.step == schedule.end
            if reached and (stop.requested or last or now - saved > SAVE_SECONDS):
                writer.sync()
                partial.save(ensemble.state())
                saved, kept = clock.monotonic(), ensemble.step
            if stop.requested and not last:
                raise _interrupted(plan, partial, stop, kept)
            written = schedule.frames_before(ensemble.step) - done
            done += written
            speed = _ns_per_day((ensemble.step - first) * plan.timestep, now - begun)
            bar.advance(written, **_fields(ensemble, speed))
        for name, values in _tables(plan, ensemble).items():
            writer.write_table(name, values)
        writer.sync()
    return _ns_per_day((ensemble.step - first) * plan.timestep, clock.monotonic() - begun)


def _tables(plan: _Plan, ensemble: Ensemble | None = None) -> dict[str, np.ndarray]:
    """What stands beside the frames, or the room for it."""
    n = len(plan.temperatures)
    pairs = np.zeros(n - 1, dtype="int64")
    tables = {
        "temperatures": plan.temperatures,
        "kinetic_temperature": ensemble.mean_heat if ensemble else np.zeros(n),
    }
    if n > 1:
        ladder = ensemble.ladder if ensemble else None
        tables |= {
            "exchange/attempted": ladder.attempted if ladder else pairs,
            "exchange/accepted": ladder.accepted if ladder else pairs,
            "exchange/trips": ladder.trips if ladder else np.zeros(n, dtype="int64"),
        }
    return tables


def _ns_per_day(femtoseconds: float, seconds: float) -> float:
    return femtoseconds * 1e-6 * 86400 / max(seconds, 1e-9)


def _fields(ensemble: Ensemble, speed: float) -> dict[str, Any]:
    """What the progress shows."""
    fields: dict[str, Any] = {"ns/day": round(speed, 1)}
    if ensemble.ladder.attempted.sum():
        share = ensemble.ladder.accepted.sum() / ensemble.ladder.attempted.sum()
        fields["swaps"] = f"{100 * share:.0f} %"
    return fields


def _exploded(plan: _Plan, ensemble: Ensemble, error: NumericalError) -> NumericalError:
    schedule = plan.schedule
    frame = schedule.frames_before(ensemble.step) * len(plan.temperatures)
    when = f"before frame {frame}" if ensemble.step >= schedule.equilibration else "equilibration"
    until = schedule.next_event(ensemble.step)
    return NumericalError(
        error.message,
        where=f"{plan.output}, {when}, steps {ensemble.step} to {until}",
        remedy=f"take a --timestep shorter than {plan.timestep:g} fs, or mend the structure",
    )


def _interrupted(
    plan: _Plan, partial: PartialRun, stop: StopRequest, kept: int
) -> InterruptedRunError:
    name = stop.signal.name if stop.signal else "a signal"
    frames = plan.schedule.frames_before(kept)
    return InterruptedRunError(
        f"stopped by {name}, {frames} of {plan.schedule.n_frames} frames are kept",
        where=str(partial.folder),
        remedy="run the same command again to continue",
    )


def _facts(plan: _Plan, made: Simulated) -> dict[str, Any]:
    """Root attributes of the file."""
    options = plan.options
    inputs = [Path(n) for n in options.forcefield if Path(n).is_file()]
    inputs += [plan.system] if plan.system else []
    command = [
        *("mlff", "sample"),
        *([str(plan.system)] if plan.system else ["--peptide", str(options.peptide)]),
        *("--temperature", ",".join(f"{t:g}" for t in plan.temperatures)),
        *("--forcefield", ",".join(options.forcefield), "--constraints", options.constraints),
        *("--time", f"{options.time:g}", "--equilibration", f"{options.equilibration:g}"),
        *("--timestep", f"{plan.timestep:g}", "--interval", f"{options.interval:g}"),
        *("--friction", f"{options.friction:g}", "--ph", f"{options.ph:g}"),
        *(("--exchange-interval", f"{options.exchange_interval:g}") * (len(plan.temperatures) > 1)),
        *(("--padding", f"{options.padding:g}") * (made.solvent == "explicit")),
        *("--platform", plan.engine.platform, "--threads", str(options.threads)),
        *("--seed", str(options.seed)),
    ]
    packages = ("openmm", "numpy", *(("rdkit",) if options.peptide else ()))
    return {
        "topology_pdb": topology_pdb(made),
        "forcefield": list(options.forcefield),
        "constraints": options.constraints,
        "rigid_water": options.constraints == "hbonds",
        "forces": FORCES,
        "positions": "unwrapped, molecules whole"
        if made.periodic
        else "near the origin: the centre of mass is put back there after every frame",
        "solvent": made.solvent,
        "temperatures": plan.temperatures.tolist(),
        "integrator": INTEGRATOR,
        "timestep_fs": plan.timestep,
        "friction_per_ps": options.friction,
        "centre_of_mass_motion": "not removed",
        "platform": plan.engine.platform,
        "repeats_bit_for_bit": int(plan.engine.exact),
        "seed": options.seed,
        "provenance": provenance(command, inputs, seed=options.seed, packages=packages),
    }


def _described(plan: _Plan, made: Simulated) -> str:
    hydrogens, waters = made.hydrogens_added, made.waters_added
    added = [f"{hydrogens} hydrogens"] if hydrogens else []
    added += [f"{waters} waters and ions"] if waters else []
    told = f"{made.system.getNumParticles()} atoms, solvent: {made.solvent}"
    return f"{told}; added {' and '.join(added) or 'nothing'}; platform {plan.engine.platform}"


def _dry_summary(plan: _Plan, made: Simulated) -> Summary:
    n_atoms, n = made.system.getNumParticles(), len(plan.temperatures)
    frames = plan.schedule.n_frames * n
    size = frames * n_atoms * 2 * 3 * np.dtype(ELEMENTS["position"].type("float32")).itemsize
    lines = [
        _described(plan, made),
        f"would run {n} replica{'s' * (n > 1)} of {plan.schedule.end} steps of {plan.timestep:g} "
        f"fs, and write {frames} frames ({size / 1e6:.1f} MB) to {plan.output}",
    ]
    data = {
        "output": str(plan.output),
        "atoms": n_atoms,
        "solvent": made.solvent,
        "hydrogens_added": made.hydrogens_added,
        "waters_added": made.waters_added,
        "temperatures": plan.temperatures.tolist(),
        "steps": plan.schedule.end,
        "frames": frames,
        "platform": plan.engine.platform,
    }
    return Summary(data, lines=lines)


def _summary(
    plan: _Plan, partial: PartialRun, ensemble: Ensemble, speed: float, reporter: Reporter
) -> Summary:
    """Means over the frames, and how exchange went."""
    n, ladder = len(plan.temperatures), ensemble.ladder
    with H5MDTrajectory(partial.trajectory) as file:
        energy = file.read(np.arange(file.n_frames), positions=False).energy
        assert energy is not None
        by_temperature = energy.reshape(-1, n)
        n_atoms = file.n_atoms
    heat = ensemble.mean_heat
    tables = [energy_table(plan.temperatures, by_temperature, heat, n_atoms)]
    data: dict[str, Any] = {
        "output": str(plan.output),
        "atoms": n_atoms,
        "frames": plan.schedule.n_frames * n,
        "temperatures": plan.temperatures.tolist(),
        "mean_energy_kcal_mol": by_temperature.mean(axis=0).tolist(),
        "std_energy_kcal_mol": by_temperature.std(axis=0).tolist(),
        "kinetic_temperature": heat.tolist(),
        "constraints": plan.options.constraints,
        "platform": plan.engine.platform,
        "repeats_bit_for_bit": plan.engine.exact,
        "ns_per_day": speed,
    }
    if n > 1:
        data["exchange"] = plain_exchange(ladder)
        tables.append(exchange_table(ladder))
        if warning := poor_exchange(ladder):
            reporter.warning(warning)
    line = f"wrote {plan.output}: {speed:.1f} ns/day for each replica"
    return Summary(data, tables, [line])
