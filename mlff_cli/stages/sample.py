"""`mlff sample`: molecular dynamics, written with forces.

One temperature is a plain Langevin simulation, several are replica exchange. OpenMM moves a few
replicas of any system, torch hundreds of a molecule. Everything that the
next step depends on is kept beside the output, so that a run that was stopped or killed goes on
exactly where the last kept state stands.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from mlff_cli.core.artifacts import alone_in
from mlff_cli.core.errors import NumericalError
from mlff_cli.core.reporting import NullReporter, Reporter, Summary
from mlff_cli.core.runtime import interruptible
from mlff_cli.data.trajectories.h5md import H5MDTrajectory
from mlff_cli.data.trajectories.h5md_layout import ELEMENTS
from mlff_cli.data.trajectories.partial_run import PartialRun
from mlff_cli.physics.mapped_exchange import MappedExchange
from mlff_cli.physics.md_schedule import FS
from mlff_cli.physics.openmm_system import Simulated, density
from mlff_cli.report.sampling import (
    energy_table,
    exchange_table,
    far_from_equilibrium,
    mirror_images,
    odd_density,
    plain_exchange,
    plain_mapped,
    poor_exchange,
)
from mlff_cli.sampling.plan import LONGEST, Options, Plan, make_plan
from mlff_cli.sampling.preparation import (
    AnyEnsemble,
    build,
    check_mapped,
    check_simulable,
    described,
    make_ensemble,
    prepare,
)
from mlff_cli.sampling.simulation import simulate

__all__ = ["Options", "run"]


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
    if options.engine == "torch" or options.flow is not None:
        # here, because torch takes a moment, and OpenMM alone does without it
        from mlff_cli.deploy.predictor import resolve_device

        options = dataclasses.replace(options, device=str(resolve_device(options.device)))
    plan = make_plan(system, output, options)
    if plan.timestep > LONGEST[options.constraints]:
        reporter.warning(
            f"a timestep of {plan.timestep:g} fs is long for --constraints {options.constraints}: "
            f"above {LONGEST[options.constraints]:g} fs dynamics may break or heat"
        )
    mapped = _mapped(plan, reporter)
    if options.dry_run:
        made = build(plan)
        if mapped is not None:
            check_mapped(mapped, made)
        return _dry_summary(plan, made, mapped, reporter)
    if mapped is not None:
        reporter.info(_through(plan, mapped))
    partial = PartialRun(output)
    with interruptible() as stop, alone_in(partial.folder, "mlff sample"):
        try:
            model = prepare(plan, partial, stop, reporter, mapped)
            if warning := odd_density(density(model)):
                reporter.warning(warning)
            ensemble = make_ensemble(plan, model, mapped)
            ensemble.restore(partial.load())
            speed = simulate(plan, partial, ensemble, stop, reporter)
            summary = _summary(plan, partial, ensemble, speed, density(model), reporter)
        except NumericalError:
            if plan.exact:  # continuing would end the same way
                partial.remove()
            raise
        finally:
            if not partial.complete:
                partial.remove()
        partial.finish(output, force=options.force)
    return summary


def _evaluations(plan: Plan, ensemble: AnyEnsemble) -> dict[str, int]:
    """How many energies of one conformation were computed: every step's, and of proposals."""
    proposals = ensemble.mapped.evaluations if ensemble.mapped else 0
    return {"dynamics": plan.schedule.end * plan.n_replicas, "proposals": proposals}


def _mapped(plan: Plan, reporter: Reporter) -> MappedExchange | None:
    """Swaps through the flow that was asked for."""
    options = plan.options
    if options.flow is None:
        return None
    # here, because torch takes a moment, and OpenMM alone does without it
    from mlff_cli.families.transport_exchange import flow_exchange

    mapped, doubt = flow_exchange(
        options.flow, plan.temperatures, options.forcefield, options.device
    )
    if doubt:
        reporter.warning(doubt)
    return mapped


def _through(plan: Plan, mapped: MappedExchange) -> str:
    """Which swaps a flow makes, and how often."""
    low, high = plan.temperatures[mapped.pair : mapped.pair + 2]
    often = 2 * plan.schedule.exchange * plan.timestep / FS
    return (
        f"swaps between {low:g} and {high:g} K go through {plan.options.flow}, tried every "
        f"{often:g} ps: even and odd pairs take turns"
    )


def _dry_summary(
    plan: Plan, made: Simulated, mapped: MappedExchange | None, reporter: Reporter
) -> Summary:
    if warning := odd_density(made.density):
        reporter.warning(warning)
    check_simulable(plan, made)
    n_atoms, n = made.system.getNumParticles(), plan.n_replicas
    frames = plan.schedule.n_frames * n
    size = frames * n_atoms * 2 * 3 * np.dtype(ELEMENTS["position"].type("float32")).itemsize
    kelvin = ", ".join(f"{t:g}" for t in plan.temperatures)
    lines = [
        described(plan, made),
        f"would run {n} replica{'s' * (n > 1)} at {kelvin} K "
        f"of {plan.schedule.end} steps of {plan.timestep:g} fs ({plan.options.equilibration:g} ps "
        f"before {plan.options.time:g} ps), and write {frames} frames ({size / 1e6:.1f} MB) to "
        f"{plan.output}",
    ]
    if mapped is not None:
        lines.append(_through(plan, mapped))
    data = {
        "output": str(plan.output),
        "atoms": n_atoms,
        "solvent": made.solvent,
        "density_g_cm3": made.density,
        "hydrogens_added": made.hydrogens_added,
        "waters_added": made.waters_added,
        "temperatures": plan.temperatures.tolist(),
        "steps": plan.schedule.end,
        "frames": frames,
        "platform": plan.platform,
        "replicas": n,
    }
    return Summary(data, lines=lines)


def _summary(
    plan: Plan,
    partial: PartialRun,
    ensemble: AnyEnsemble,
    speed: float,
    filled: float | None,
    reporter: Reporter,
) -> Summary:
    """Means over the frames, and how exchange went."""
    n, ladder = len(plan.temperatures), ensemble.ladder
    with H5MDTrajectory(partial.trajectory) as file:
        energy = file.read(np.arange(file.n_frames), positions=False).energy
        assert energy is not None
        by_temperature = energy.reshape(-1, n, plan.options.replicas).swapaxes(1, 2).reshape(-1, n)
        n_atoms = file.n_atoms
    heat = ensemble.mean_heat
    shown = [energy_table(plan.temperatures, by_temperature, heat, n_atoms)]
    data: dict[str, Any] = {
        "output": str(plan.output),
        "atoms": n_atoms,
        "frames": plan.schedule.n_frames * plan.n_replicas,
        "replicas": plan.n_replicas,
        "temperatures": plan.temperatures.tolist(),
        "mean_energy_kcal_mol": by_temperature.mean(axis=0).tolist(),
        "std_energy_kcal_mol": by_temperature.std(axis=0).tolist(),
        "kinetic_temperature": heat.tolist(),
        "density_g_cm3": filled,
        "constraints": plan.options.constraints,
        "platform": plan.platform,
        "repeats_bit_for_bit": plan.exact,
        "ns_per_day": speed,
    }
    if warning := far_from_equilibrium(plan.temperatures, heat, n_atoms, len(by_temperature)):
        reporter.warning(warning)
    if n > 1:
        data["exchange"] = {
            **plain_exchange(ladder),
            "energy_evaluations": _evaluations(plan, ensemble),
        }
        mapped, model = ensemble.mapped, str(plan.options.flow)
        shown.append(exchange_table(ladder, mapped, model))
        if mapped is not None:
            data["exchange"]["flow"] = plain_mapped(mapped, model)
            if warning := mirror_images(mapped):
                reporter.warning(warning)
        if warning := poor_exchange(ladder):
            reporter.warning(warning)
    told = f", {speed * plan.n_replicas:.1f} for all {plan.n_replicas}" if plan.batched else ""
    lines = [f"wrote {plan.output}: {speed:.1f} ns/day for each replica{told}"]
    if filled is not None:
        lines.append(f"the density was {filled:.3f} g/cm3, at constant volume")
    return Summary(data, shown, lines)
