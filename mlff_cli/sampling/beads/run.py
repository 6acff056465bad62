"""From the last kept state to the end of a simulation of beads, and what is kept when it breaks."""

from __future__ import annotations

import time as clock
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlff_cli.core.artifacts import write_text
from mlff_cli.core.errors import InterruptedRunError, NumericalError
from mlff_cli.core.reporting import Reporter
from mlff_cli.core.runtime import StopRequest
from mlff_cli.data.beads.bead_pdb import bead_elements, bead_pdb
from mlff_cli.data.trajectories.h5md_cut import write_first_frames
from mlff_cli.data.trajectories.h5md_writer import H5MDWriter, create_h5md
from mlff_cli.data.trajectories.partial_run import PartialRun
from mlff_cli.potentials.bead_topology import BeadTopology
from mlff_cli.sampling.beads.dynamics import BeadDynamics, BrokenChainError
from mlff_cli.sampling.beads.plan import Plan

SAVE_SECONDS = 30.0  # at most this much work is lost by a kill -9
SHOW_SECONDS = 0.2  # between signs of life
WRITTEN = ("position", "force", "potential_energy", "temperature", "replica")


def pdb_of(topology: BeadTopology, positions: np.ndarray, remarks: Sequence[str] = ()) -> str:
    """A frame (n, 3) in angstrom of a molecule as PDB text."""
    return bead_pdb(
        topology.bead_names,
        topology.residue_names,
        topology.residues,
        topology.chains,
        positions,
        topology.terms.bonds,
        remarks,
    )


def labels_of(topology: BeadTopology) -> list[str]:
    """What beads are called in messages: "ALA 3 CA", with the chain where there are several."""
    several = len(set(topology.chains.tolist())) > 1
    return [
        f"{name} {number} {bead}" + (f" of chain {chain}" if several else "")
        for name, number, bead, chain in zip(
            topology.residue_names,
            topology.residues.tolist(),
            topology.bead_names,
            topology.chains.tolist(),
            strict=True,
        )
    ]


def tables(plan: Plan, dynamics: BeadDynamics | None = None) -> dict[str, np.ndarray]:
    """What stands beside the frames, or the room for it."""
    n = len(plan.temperatures)
    found = {
        "temperatures": plan.temperatures,
        "kinetic_temperature": dynamics.mean_heat if dynamics else np.zeros(n),
    }
    if n > 1:
        counts = dynamics.exchanged() if dynamics else None
        pairs = np.zeros(n - 1, dtype="int64")
        found |= {
            "exchange/attempted": counts.attempted if counts else pairs,
            "exchange/accepted": counts.accepted if counts else pairs,
            "exchange/trips": counts.trips if counts else np.zeros(n, dtype="int64"),
        }
    return found


def create(plan: Plan, path: Path, topology: BeadTopology, facts: Mapping[str, Any]) -> None:
    """Make room for every frame of a run."""
    create_h5md(
        path,
        WRITTEN,
        plan.schedule.n_frames * plan.n_replicas,
        bead_elements(topology.bead_names),
        bonds=topology.terms.bonds,
        attrs=facts,
        tables=tables(plan),
    )


def simulate(
    plan: Plan,
    topology: BeadTopology,
    partial: PartialRun,
    dynamics: BeadDynamics,
    stop: StopRequest,
    reporter: Reporter,
) -> float:
    """Go to the end.

    Returns:
        Steps per second, of all replicas together.

    Raises:
        InterruptedRunError: stopped by a signal; what was done is kept.
        NumericalError: a chain broke; its frame and those before are kept beside the output.
    """
    schedule, n = plan.schedule, plan.n_replicas
    first, kept = dynamics.step, dynamics.step
    if first:
        done = schedule.frames_before(first)
        reporter.info(f"continuing: {done} of {schedule.n_frames} frames are there")
    begun = saved = shown = clock.monotonic()
    told = f"{n} replicas" if n > 1 else "simulating"

    def frames(arrays: Mapping[str, np.ndarray], row: int) -> None:
        writer.write(row, arrays)

    with (
        H5MDWriter(partial.trajectory) as writer,
        reporter.progress(schedule.end, told, "steps") as bar,
    ):
        bar.skip(first)
        counted = first
        while dynamics.step < schedule.end:
            try:
                dynamics.advance(frames)
            except BrokenChainError as error:
                writer.sync()
                raise keep_broken(plan, topology, partial, dynamics, error) from error
            now = clock.monotonic()
            last = dynamics.step == schedule.end
            stopping = stop.requested  # asked once: what is left now must have been saved
            if stopping or last or now - saved > SAVE_SECONDS:
                writer.sync()
                partial.save(dynamics.state())
                saved, kept = clock.monotonic(), dynamics.step
            if last or stopping or now - shown > SHOW_SECONDS:
                speed = (dynamics.step - first) * n / max(now - begun, 1e-9)
                bar.advance(dynamics.step - counted, **_fields(plan, dynamics, speed))
                counted, shown = dynamics.step, now
            if stopping and not last:
                raise interrupted(plan, partial, stop, kept)
        for name, values in tables(plan, dynamics).items():
            writer.write_table(name, values)
        writer.sync()
    return (dynamics.step - first) * n / max(clock.monotonic() - begun, 1e-9)


def interrupted(
    plan: Plan, partial: PartialRun, stop: StopRequest, kept: int
) -> InterruptedRunError:
    """What a run that was asked to stop ends with; `kept` is the step that it will go on from."""
    name = stop.signal.name if stop.signal else "a signal"
    return InterruptedRunError(
        f"stopped by {name} after {kept} of {plan.schedule.end} steps, which are kept",
        where=str(partial.folder),
        remedy="run the same command again to continue",
    )


def keep_broken(
    plan: Plan,
    topology: BeadTopology,
    partial: PartialRun,
    dynamics: BeadDynamics,
    error: BrokenChainError,
) -> NumericalError:
    """Write the frame of a broken chain as PDB and the frames before it as H5MD; say where."""
    stem = plan.output.with_suffix("")
    frame, before = Path(f"{stem}.broken.pdb"), Path(f"{stem}.broken{plan.output.suffix}")
    write_text(frame, pdb_of(topology, error.positions, [error.message]), force=True)
    rows = plan.schedule.frames_before(dynamics.step - 1) * plan.n_replicas
    told = f"the frame is in {frame}"
    if rows:
        write_first_frames(partial.trajectory, before, rows)
        told += f", {rows} frames before it in {before}"
    return NumericalError(
        error.message,
        where=str(plan.output),
        remedy=f"{told}; take a --timestep shorter than {plan.timestep:g} fs, or train the model "
        "on such frames, or with a prior that holds chains together",
    )


def _fields(plan: Plan, dynamics: BeadDynamics, speed: float) -> dict[str, Any]:
    """What the progress shows."""
    fields: dict[str, Any] = {
        "ns/day": f"{speed * plan.timestep * 1e-6 * 86400:.3g}",
        "steps/s": f"{speed:.3g}",
    }
    counts = dynamics.exchanged()
    if counts.attempted.sum():
        fields["swaps"] = f"{100 * counts.accepted.sum() / counts.attempted.sum():.0f} %"
    return fields
