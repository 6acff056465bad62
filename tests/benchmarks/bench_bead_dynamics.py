"""Many replicas in one batch beside one replica in OpenMM: aggregate steps per second.

    python -m tests.benchmarks bead_dynamics                     # some minutes
    python -m tests.benchmarks bead_dynamics --sizes prior --repeats 1 -o docs/benchmarks

A chain of 10 beads under a parametric prior, alone and below an Allegro of each size (its weights
are the first ones: they decide nothing about speed). Ours: `physics.langevin` with 256 replicas, a
part of them in each thread, looked at as `mlff simulate` does. The peer: the same TorchScript model
as a `PythonForce` of OpenMM, one replica, with one and with all threads of torch, whichever is
faster. Both run by turns in this process on the same cores.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from mlff_cli.core.workers import available_cores
from mlff_cli.deploy import torchscript
from mlff_cli.deploy.beads.openmm import OpenMMReplicas
from mlff_cli.deploy.beads.potential import BeadPotential
from mlff_cli.physics.langevin import Langevin
from mlff_cli.physics.md_schedule import Schedule
from mlff_cli.physics.replicas import Replicas
from mlff_cli.potentials.allegro import SIZES, Allegro, AllegroSpec
from mlff_cli.potentials.bead_model import BeadModel
from mlff_cli.potentials.bead_topology import BeadTopology
from mlff_cli.potentials.bound_bead_model import BoundBeadModel
from mlff_cli.potentials.prior import Prior
from mlff_cli.sampling.beads.dynamics import BeadDynamics
from mlff_cli.sampling.beads.guard import Guard
from mlff_cli.sampling.threaded import Threaded, torch_threads
from tests.potentials.prior_cases import PARAMETRIC, SPECIES, chain_terms, chain_types

N, REPLICAS, TIMESTEP = 10, 256, 2.0
WANTED = {"prior": 20.0, "small": 10.0}  # times
SECONDS = 5.0  # of each measurement
COLUMNS = ("model", "OpenMM (steps/s)", f"{REPLICAS} replicas (steps/s)", "ratio", "load")


def helix() -> np.ndarray:
    """C-alpha beads (n, 3) of an alpha helix, angstrom: nearly all within the cutoff."""
    t = np.arange(N)
    angle = np.deg2rad(100.0) * t
    return np.stack([2.3 * np.cos(angle), 2.3 * np.sin(angle), 1.5 * t], 1)


def potential_of(size: str) -> BeadPotential:
    """The prior alone, or below an Allegro."""
    types = tuple(chain_types(N))
    topology = BeadTopology(
        "chain", types, ("CA",) * N, types, np.arange(1, N + 1), np.zeros(N, dtype=np.int64),
        np.full(N, 110.0), chain_terms(N), helix(),
    )  # fmt: skip
    allegro = None if size == "prior" else Allegro(AllegroSpec.of(size, SPECIES))
    model = BeadModel(allegro, Prior(PARAMETRIC)).requires_grad_(False)
    return BeadPotential(torchscript.script(BoundBeadModel([model], topology)), topology, {})


def speed(replicas: Replicas, copies: int, topology: BeadTopology) -> float:
    """Steps per second of all replicas together, for at least `SECONDS`."""
    start = np.repeat(helix()[None], copies, axis=0)
    guard = Guard(topology.terms.bonds, start, [str(k) for k in range(N)])
    endless = Schedule(equilibration=0, production=10**9, interval=10**9, exchange=0)
    run = BeadDynamics(
        replicas, guard, np.array([300.0]), copies, endless, timestep=TIMESTEP, seed=0
    )
    run.start(start)
    run.advance(lambda arrays, row: None)
    first, begun = run.step, perf_counter()
    while perf_counter() - begun < SECONDS:
        run.advance(lambda arrays, row: None)
    return (run.step - first) * copies / (perf_counter() - begun)


def compare(size: str, repeats: int, cores: int) -> dict[str, Any]:
    """A row: medians over runs by turns."""
    potential = potential_of(size)
    masses = potential.topology.masses
    settings: dict[str, Any] = {"friction": 1.0, "timestep": TIMESTEP, "seed": 0}
    theirs: dict[int, list[float]] = {threads: [] for threads in sorted({1, cores})}
    ours, loads = [], []
    for _ in range(repeats):
        loads.append(os.getloadavg()[0])
        for threads, found in theirs.items():
            with torch_threads(threads):
                one = OpenMMReplicas(potential, masses, np.array([300.0]), **settings)
                found.append(speed(one, 1, potential.topology))
        with torch_threads(1), Threaded(potential, cores) as threaded:
            many = Langevin(threaded, masses, np.full(REPLICAS, 300.0), **settings, recentre=True)
            ours.append(speed(many, REPLICAS, potential.topology))
    openmm = max(statistics.median(found) for found in theirs.values())
    batched = statistics.median(ours)
    return {
        "model": size,
        "openmm_steps_s": openmm,
        "batched_steps_s": batched,
        "ratio": batched / openmm,
        "wanted": WANTED.get(size),
        "load": statistics.median(loads),
    }


def cells(row: dict[str, Any]) -> list[str]:
    """A row of the printed table."""
    name = "prior alone" if row["model"] == "prior" else f"prior and Allegro `{row['model']}`"
    return [
        name,
        f"{row['openmm_steps_s']:.0f}",
        f"{row['batched_steps_s']:.0f}",
        f"{row['ratio']:.1f} x",
        f"{row['load']:.1f}",
    ]


def markdown(result: dict[str, Any]) -> str:
    """The result as a page that says how it was made."""
    rows = [COLUMNS, ("---",) * len(COLUMNS), *(cells(row) for row in result["rows"])]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    versions = ", ".join(f"{name} {value}" for name, value in result["versions"].items())
    return (
        "# Dynamics of beads: a batch of replicas beside OpenMM\n\n"
        f"Written by `{result['command']}`.\n\n{table}\n\n"
        f"A chain of {N} beads, {TIMESTEP:g} fs, aggregate steps per second of all replicas; "
        f"medians of {result['repeats']} runs by turns, {result['cores']} CPU cores, no GPU, "
        f"{versions}. OpenMM: `PythonForce` on the same TorchScript model, one replica, the faster "
        "of one and of all threads. Wanted are 20 times for the prior and 10 times for `small`.\n"
    )


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run, print and return the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", default=",".join(["prior", *SIZES]))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, help="folder for bead_dynamics.json and .md")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    cores = available_cores()
    rows = [compare(size, options.repeats, cores) for size in options.sizes.split(",")]
    result: dict[str, Any] = {
        "command": "python -m tests.benchmarks bead_dynamics",
        "repeats": options.repeats,
        "cores": cores,
        "versions": {
            "Python": platform.python_version(),
            **{name: version(name) for name in ("torch", "OpenMM", "nequip-allegro")},
        },
        "rows": rows,
    }
    print("  ".join(COLUMNS))
    for row in rows:
        print("  ".join(c.rjust(len(t)) for c, t in zip(cells(row), COLUMNS, strict=True)))
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "bead_dynamics.json").write_text(json.dumps(result, indent=2) + "\n")
        (options.output / "bead_dynamics.md").write_text(markdown(result))
    return result


if __name__ == "__main__":
    main()
