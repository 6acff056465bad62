"""`mlff sample` beside bare OpenMM steps: what writing frames costs.

    python -m tests.benchmarks sampling                  # some minutes
    python -m tests.benchmarks sampling --steps 2000 --repeats 1 -o docs/benchmarks

A peptide of 10 residues (138 atoms, Amber14, OBC2, 1 fs), one thread of OpenMM's CPU platform. Both
take the same number of steps, by turns, in this process. On a machine with other work the CPU time
says more than the wall time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
from importlib.metadata import version
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import openmm

from mlff_cli.core.reporting import NullReporter
from mlff_cli.core.runtime import StopRequest
from mlff_cli.data.trajectories.partial_run import PartialRun
from mlff_cli.physics.minimisation import minimise
from mlff_cli.sampling.plan import Options, Plan, make_plan
from mlff_cli.sampling.preparation import build, make_ensemble, prepare
from mlff_cli.sampling.simulation import simulate

PEPTIDE = "GYDPETGTWG"
STEPS = 4000
REPEATS = 5
INTERVALS = (20, 200)  # steps between frames
COLUMNS = ("steps between frames", "bare (ns/day)", "mlff (ns/day)", "CPU time", "load")


def plan_of(folder: Path, steps: int, interval: int) -> Plan:
    """A run of so many steps of 1 fs, with frames every `interval` of them."""
    options = Options(
        peptide=PEPTIDE,
        time=steps / 1000,
        equilibration=0.0,
        interval=interval / 1000,
        platform="CPU",
    )
    return make_plan(None, folder / "a.h5", options)


def ours(steps: int, interval: int) -> tuple[float, float]:
    """Wall and CPU seconds of the simulation, frames written."""
    with tempfile.TemporaryDirectory() as folder:
        plan = plan_of(Path(folder), steps, interval)
        partial, stop = PartialRun(plan.output), StopRequest()
        partial.folder.mkdir()
        ensemble = make_ensemble(plan, prepare(plan, partial, stop, NullReporter()))
        ensemble.restore(partial.load())
        wall, cpu = perf_counter(), process_time()
        simulate(plan, partial, ensemble, stop, NullReporter())
        return perf_counter() - wall, process_time() - cpu


def bare(steps: int) -> tuple[float, float]:
    """Wall and CPU seconds of OpenMM's steps alone, from the same minimum."""
    with tempfile.TemporaryDirectory() as folder:
        plan = plan_of(Path(folder), steps, steps)
        made = build(plan)
        positions, _, _ = minimise(made, plan.engine.context(made.system))
        integrator = openmm.LangevinMiddleIntegrator(300, plan.options.friction, 0.001)
        context = plan.engine.context(made.system, integrator)
        context.setPositions(positions)
        context.setVelocitiesToTemperature(300, 1)
        context.getState(forces=True)
        wall, cpu = perf_counter(), process_time()
        integrator.step(steps)
        context.getState(energy=True)
        return perf_counter() - wall, process_time() - cpu


def compare(steps: int, repeats: int) -> list[dict[str, Any]]:
    """A row for every interval; medians over runs by turns."""
    found: dict[int, list[tuple[float, float]]] = {interval: [] for interval in (0, *INTERVALS)}
    loads = []
    for _ in range(repeats):
        loads.append(os.getloadavg()[0])
        found[0].append(bare(steps))
        for interval in INTERVALS:
            found[interval].append(ours(steps, interval))

    def speed(interval: int) -> float:
        seconds = statistics.median(wall for wall, _ in found[interval])
        return steps * 1e-6 * 86400 / seconds

    return [
        {
            "interval": interval,
            "bare_ns_day": speed(0),
            "mlff_ns_day": speed(interval),
            "cpu_ratio": statistics.median(
                mine / theirs
                for (_, mine), (_, theirs) in zip(found[interval], found[0], strict=True)
            ),
            "load": statistics.median(loads),
        }
        for interval in INTERVALS
    ]


def cells(row: dict[str, Any]) -> list[str]:
    """A row of the printed table."""
    formats = {
        "interval": "{}",
        "bare_ns_day": "{:.1f}",
        "mlff_ns_day": "{:.1f}",
        "cpu_ratio": "{:.2f} x",
        "load": "{:.1f}",
    }
    return [form.format(row[key]) for key, form in formats.items()]


def markdown(result: dict[str, Any]) -> str:
    """The result as a page that says how it was made."""
    rows = [COLUMNS, ("---",) * len(COLUMNS), *(cells(row) for row in result["rows"])]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    versions = ", ".join(f"{name} {value}" for name, value in result["versions"].items())
    return (
        "# Sampling: what writing frames costs\n\n"
        f"Written by `{result['command']}`.\n\n{table}\n\n"
        f"{PEPTIDE}, 138 atoms, Amber14 with OBC2, {result['steps']} steps of 1 fs on one thread "
        f"of the CPU platform; medians of {result['repeats']} runs by turns. CPU time is that of "
        f"`mlff sample` over that of bare steps, {result['cpus']} CPU cores, {versions}.\n"
    )


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run, print and return the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("-o", "--output", type=Path, help="folder for sampling.json and .md")
    options = parser.parse_args(arguments)
    result: dict[str, Any] = {
        "command": "python -m tests.benchmarks sampling",
        "steps": options.steps,
        "repeats": options.repeats,
        "cpus": os.cpu_count(),
        "versions": {"Python": platform.python_version(), "OpenMM": version("openmm")},
        "rows": compare(options.steps, options.repeats),
    }
    print("  ".join(COLUMNS))
    for row in result["rows"]:
        print("  ".join(c.rjust(len(t)) for c, t in zip(cells(row), COLUMNS, strict=True)))
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "sampling.json").write_text(json.dumps(result, indent=2) + "\n")
        (options.output / "sampling.md").write_text(markdown(result))
    return result


if __name__ == "__main__":
    main()
