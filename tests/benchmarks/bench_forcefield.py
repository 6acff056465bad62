"""The batched force field beside OpenMM's CPU platform: milliseconds per conformation.

    python -m tests.benchmarks forcefield                # a minute
    python -m tests.benchmarks forcefield --compile -o docs/benchmarks

ACE-ALA-NME (22 atoms, Amber14, OBC2), energies and forces of the same conformations, one thread,
by turns in this process. OpenMM's loop sets positions and asks for energy and forces of one
conformation after the other in one context, as there is no other way. Each figure is the least of
all runs: other work on the machine adds time and never takes any away. The ratio is that of CPU
times: OpenMM hands each evaluation to another thread, and a busy machine makes that wait.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import openmm
import torch
from torch import Tensor

from mlff_cli.physics.energies import TorchEnergy
from mlff_cli.physics.forcefield import ForceField
from mlff_cli.physics.molecular_dynamics import choose_engine
from mlff_cli.sampling.plan import Options, make_plan
from mlff_cli.sampling.preparation import build

PEPTIDE = "ACE-ALA-NME"
BATCH = 256
REPEATS = 20
WANTED = 10.0  # times OpenMM's speed, in single precision
NOISE = 0.003  # nm
COLUMNS = ("engine", "wall (ms)", "CPU (ms)", "times OpenMM", "error (kJ/mol)")


def openmm_loop(system: openmm.System) -> Callable[[np.ndarray], np.ndarray]:
    """Energies of conformations, one after the other, forces fetched as well."""
    context = choose_engine("CPU", 1).context(system)

    def evaluate(x: np.ndarray) -> np.ndarray:
        energies = np.empty(len(x))
        for k, positions in enumerate(x):
            context.setPositions(positions)
            state = context.getState(energy=True, forces=True)
            energies[k] = state.getPotentialEnergy()._value
            state.getForces(asNumpy=True)
        return energies

    return evaluate


def batched(
    system: openmm.System, dtype: torch.dtype, compile: bool
) -> Callable[[np.ndarray], np.ndarray]:
    """Energies of conformations at once, gradients as well."""
    engine = TorchEnergy(ForceField.from_system(system, dtype), compile=compile)

    def evaluate(x: np.ndarray) -> np.ndarray:
        found: Tensor = engine(torch.as_tensor(x, dtype=dtype))[0]
        return found.double().numpy()

    return evaluate


def compare(batch: int, repeats: int, compile: bool) -> list[dict[str, Any]]:
    """A row for every engine; the least time of all runs, by turns."""
    made = build(make_plan(None, Path("none.h5"), Options(peptide=PEPTIDE)))
    noise = np.random.default_rng(0).normal(size=(batch, *made.positions.shape))
    x = made.positions + NOISE * noise
    engines = {"OpenMM CPU, 1 thread": openmm_loop(made.system)}
    for name in ("float32", "float64"):
        for fused in (False, True)[: 1 + compile]:
            told = f"torch {name}{' compiled' * fused}"
            engines[told] = batched(made.system, getattr(torch, name), fused)
    exact = batched(made.system, torch.float64, False)(x)
    worst = {name: float(np.abs(run(x) - exact).max()) for name, run in engines.items()}
    least = {name: [math.inf, math.inf] for name in engines}
    for _ in range(repeats):
        for name, run in engines.items():
            wall, cpu = perf_counter(), process_time()
            run(x)
            spent = (perf_counter() - wall, process_time() - cpu)
            least[name] = [min(a, b) for a, b in zip(least[name], spent, strict=True)]
    first = least[next(iter(engines))]
    return [
        {
            "engine": name,
            "wall_ms": 1e3 * wall / batch,
            "cpu_ms": 1e3 * cpu / batch,
            "speedup": first[1] / cpu,
            "energy_error": worst[name],
        }
        for name, (wall, cpu) in least.items()
    ]


def cells(row: dict[str, Any]) -> list[str]:
    """A row of the printed table."""
    formats = ("{}", "{:.4f}", "{:.4f}", "{:.1f}", "{:.1e}")
    return [form.format(value) for form, value in zip(formats, row.values(), strict=True)]


def markdown(result: dict[str, Any]) -> str:
    """The result as a page that says how it was made."""
    rows = [COLUMNS, ("---",) * len(COLUMNS), *(cells(row) for row in result["rows"])]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    versions = ", ".join(f"{name} {value}" for name, value in result["versions"].items())
    return (
        "# The batched force field beside OpenMM\n\n"
        f"Written by `{result['command']}`.\n\n{table}\n\n"
        f"Per conformation: {PEPTIDE} (22 atoms, Amber14 with OBC2), energy and forces, batch "
        f"{result['batch']}, one thread each; the least of {result['repeats']} runs by turns. The "
        "ratio is that of CPU times, the error the largest difference from double precision. "
        f"{result['cpus']} CPU cores, load {result['load']:.1f}, {versions}.\n"
    )


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run, print and return the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--compile", action="store_true", help="compiled as well; needs g++")
    parser.add_argument("-o", "--output", type=Path, help="folder for forcefield.json and .md")
    options = parser.parse_args(arguments)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = compare(options.batch, options.repeats, options.compile)
    finally:
        torch.set_num_threads(threads)
    result: dict[str, Any] = {
        "command": "python -m tests.benchmarks forcefield" + " --compile" * options.compile,
        "batch": options.batch,
        "repeats": options.repeats,
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        "versions": {
            "Python": platform.python_version(),
            "OpenMM": version("openmm"),
            "torch": version("torch"),
        },
        "rows": rows,
    }
    print("  ".join(c.rjust(20) for c in COLUMNS))
    for row in rows:
        print("  ".join(c.rjust(20) for c in cells(row)))
    reached = next(row["speedup"] for row in rows if row["engine"] == "torch float32")
    print(f"float32: {reached:.1f} times OpenMM's speed, wanted {WANTED:g}")
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "forcefield.json").write_text(json.dumps(result, indent=2) + "\n")
        (options.output / "forcefield.md").write_text(markdown(result))
    return result


if __name__ == "__main__":
    main()
