"""The optimal force map beside one dense quadratic programme per bead; `mlff project-forces` whole.

    python -m tests.benchmarks.bench_force_map             # some minutes, 1.5 GB of disk
    python -m tests.benchmarks.bench_force_map --repeats 1 --frames 2000
    python -m tests.benchmarks.bench_force_map -o docs/benchmarks

1200 atoms, 76 beads, 2000 frames, without rigid groups and with 600. The peer is osqp through
qpsolvers, once per bead on the dense Gram matrix: aggforce's way. Its Gram matrix is a gift, as its
time is that of the solver alone; ours starts from forces in memory. Solver settings are its
defaults, and those of aggforce, which are stricter. Both by turns in one process; memory is that of
the whole command in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import qpsolvers

from mlff_cli.coarse.forces.constraints import constraint_groups, detect_constraints
from mlff_cli.coarse.forces.force_map import ForceMap, optimal_map
from mlff_cli.coarse.forces.gram import Gram
from mlff_cli.data.beads.cg_beads import BeadMolecule, CGBlock
from mlff_cli.data.beads.cg_npz import CGSet
from mlff_cli.data.beads.cg_writer import write_cg
from mlff_cli.data.trajectories.frames import Frames
from mlff_cli.data.trajectories.npz import write_trajectory_npz
from tests.benchmarks.bench_calc_sae import measure

N_ATOMS, N_BEADS, N_FRAMES = 1200, 76, 2000
CASES = (0, 600)  # rigid groups
FRAMES = (2000, 50_000)  # of the whole command
REPEATS = 3
PIECE = 250  # frames that are made at a time
TARGET_RATIO = {0: 100.0, 600: 40.0}
TARGET_COMMAND, TARGET_SECONDS, TARGET_MB = 20.0, 0.5, 500.0
SOLVERS: dict[str, dict[str, Any]] = {
    "osqp": {},
    "osqp as in aggforce": {
        "eps_abs": 1e-7,
        "max_iter": 1000,
        "polish": True,
        "polish_refine_iter": 10,
    },
}


@dataclass(frozen=True)
class Problem:
    """A chain of carbons with one hydrogen each; the first `n_groups` of these bonds are rigid."""

    n_groups: int

    @property
    def elements(self) -> np.ndarray:
        return np.repeat(np.array([6, 1], dtype=np.int32), N_ATOMS // 2)

    @property
    def bonds(self) -> np.ndarray:
        carbon = np.arange(N_ATOMS // 2)
        chain = np.stack([carbon[:-1], carbon[1:]], axis=1)
        return np.concatenate([chain, np.stack([carbon, carbon + N_ATOMS // 2], axis=1)])

    @property
    def groups(self) -> np.ndarray:
        return constraint_groups(N_ATOMS, self.bonds[N_ATOMS // 2 - 1 :][: self.n_groups])

    @property
    def mapping(self) -> np.ndarray:
        m = np.zeros((N_BEADS, N_ATOMS))
        m[np.arange(N_BEADS), np.arange(N_BEADS) * (N_ATOMS // 2) // N_BEADS] = 1.0
        return m

    def frames(self, n_frames: int) -> Iterator[Frames]:
        """Positions that move, with rigid bonds; forces that neighbours share, float32."""
        rng = np.random.default_rng(0)
        half = N_ATOMS // 2
        base = 3.0 * np.stack(np.unravel_index(np.arange(half), (9, 9, 9)), axis=1)
        for start in range(0, n_frames, PIECE):
            n = min(PIECE, n_frames - start)
            carbon = base + 0.3 * rng.normal(size=(n, half, 3))
            bond = rng.normal(size=(n, half, 3)) + 2.0
            length = np.full((n, half, 1), 1.09)
            length[:, self.n_groups :] += 0.03 * rng.normal(size=(n, half - self.n_groups, 1))
            bond *= length / np.linalg.norm(bond, axis=2, keepdims=True)
            f = 20.0 * rng.standard_normal((n, N_ATOMS, 3), dtype=np.float32)
            f[:, 1:] -= 0.7 * f[:, :-1]
            f[:, half:] -= 0.5 * f[:, :half]
            x = np.concatenate([carbon, carbon + bond], axis=1).astype(np.float32)
            yield Frames(np.arange(start, start + n), positions=x, forces=f)


def ours(problem: Problem, forces: np.ndarray) -> tuple[float, ForceMap, Gram]:
    """Seconds from forces to the map."""
    mapping, groups = problem.mapping, problem.groups
    start = perf_counter()
    gram = Gram(int(groups.max()) + 1).add(forces, groups)
    found = optimal_map(mapping, groups, gram)
    return perf_counter() - start, found, gram


def peer(problem: Problem, gram: Gram, settings: dict[str, Any]) -> tuple[float, np.ndarray]:
    """Seconds in the solver, from the Gram matrix to the weights (n, g)."""
    p = gram.matrix * (3 * gram.n_frames)
    a = problem.mapping @ np.eye(len(p))[problem.groups]
    q, weights = np.zeros(len(p)), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a dense matrix becomes a sparse one
        start = perf_counter()
        for one in np.eye(N_BEADS):
            weights.append(qpsolvers.solve_qp(P=p, q=q, A=a, b=one, solver="osqp", **settings))
        return perf_counter() - start, np.array(weights)


def compare_maps(n_groups: int, repeats: int) -> dict[str, Any]:
    """Medians of both, by turns."""
    problem = Problem(n_groups)
    forces = np.concatenate([f.forces for f in problem.frames(N_FRAMES) if f.forces is not None])
    times: dict[str, list[float]] = {"mlff": [], **{name: [] for name in SOLVERS}}
    row: dict[str, Any] = {"rigid_groups": n_groups, "frames": N_FRAMES}
    ours(problem, forces[:500])  # libraries are loaded
    for _ in range(repeats):
        for name, settings in SOLVERS.items():
            seconds, found, gram = ours(problem, forces)
            times["mlff"].append(seconds)
            seconds, weights = peer(problem, gram, settings)
            times[name].append(seconds)
            row[f"difference, {name}"] = float(np.abs(weights - found.v).max())
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratios = {f"ratio, {name}": medians[name] / medians["mlff"] for name in SOLVERS}
    row |= {"seconds": medians, "all_seconds": times, "consistency": found.consistency, **ratios}
    return {**row, "load": os.getloadavg()[0]}


def constraint_search(repeats: int) -> list[dict[str, Any]]:
    """Median seconds of 100 frames, exact and rounded as XTC rounds, and pairs found."""
    rows = []
    problem = Problem(600)
    x = np.concatenate([f.positions for f in problem.frames(100) if f.positions is not None])
    rounded = (np.rint(x / 0.01) * 0.01).astype(np.float32)
    for name, positions in (("exact", x), ("rounded to 0.01 A", rounded)):
        seconds = []
        for _ in range(max(3, repeats)):
            start = perf_counter()
            found = detect_constraints(positions, problem.elements, problem.bonds)
            seconds.append(perf_counter() - start)
        row = {"coordinates": name, "seconds": statistics.median(seconds)}
        rows.append({**row, "pairs": len(found.pairs), "relied_on": found.relied_on})
    return rows


def write_files(folder: Path, problem: Problem, n_frames: int) -> tuple[Path, Path]:
    """A trajectory, and the set that `mlff cg-map` would make of it."""
    trajectory, mapped = folder / "trajectory.npz", folder / "mapped.npz"
    write_trajectory_npz(trajectory, problem.frames(n_frames), problem.elements, {}, force=True)
    bead = np.arange(N_BEADS, dtype=np.int32)
    molecule = BeadMolecule(
        name="chain",
        species=np.zeros(N_BEADS, np.int32),
        residue=bead + 1,
        residue_name=np.full(N_BEADS, "ALA"),
        bead_name=np.full(N_BEADS, "CA"),
        chain=np.zeros(N_BEADS, np.int32),
        bonds=np.stack([bead[:-1], bead[1:]], axis=1),
        mapping=problem.mapping,
        elements=problem.elements,
        atom_bonds=problem.bonds.astype(np.int32),
    )
    atoms = problem.mapping.argmax(axis=1)
    blocks = (
        CGBlock(
            *(0, f.positions[:, atoms], np.zeros(len(f.rows), np.int32), f.rows),
            temperature=np.full(len(f.rows), 300.0, np.float32),
        )
        for f in problem.frames(n_frames)
        if f.positions is not None
    )
    digest = sha256()
    with trajectory.open("rb") as file:
        while piece := file.read(1 << 24):
            digest.update(piece)
    source = {
        "path": str(trajectory),
        "sha256": digest.hexdigest(),
        "format": "npz",
        "n_frames": n_frames,
        "molecule": "chain",
    }
    write_cg(mapped, [molecule], ["ALA"], [source], {}, blocks, force=True)
    return trajectory, mapped


def whole_command(
    folder: Path, n_groups: int, n_frames: int, repeats: int
) -> dict[str, float | int | list[float]]:
    """Median wall time and largest peak memory of `mlff project-forces`, which finds the groups."""
    output = folder / "cg.npz"
    # in a process of its own: on Linux a child's peak memory starts at its parent's
    made = subprocess.run(
        [*(sys.executable, "-m", __spec__.name), "--write", str(folder), str(n_groups)]
        + [str(n_frames)],
        check=True,
        capture_output=True,
        text=True,
    )
    trajectory, mapped = made.stdout.split()
    command = [*(sys.executable, "-m", "mlff_cli", "project-forces", trajectory, mapped)]
    command += ["-o", str(output), "--force", "--no-progress"]
    runs = [measure(command) for _ in range(repeats)]
    with CGSet(output) as cg:
        found = cg.metadata["force_map"]["molecules"][0]["constraints"]["groups"]
    if found != n_groups:
        raise RuntimeError(f"{n_groups} rigid groups were made, {found} were found")
    row = {"rigid_groups": n_groups, "frames": n_frames, "file_mb": _size(trajectory) / 1e6}
    for path in (trajectory, mapped, output):
        Path(path).unlink()
    return {
        **row,
        "seconds": statistics.median(seconds for seconds, _ in runs),
        "all_seconds": [seconds for seconds, _ in runs],
        "peak_mb": max(peak for _, peak in runs),
        "load": os.getloadavg()[0],
    }


def _size(path: str) -> int:
    return Path(path).stat().st_size


def table(columns: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    return "\n".join(
        "| " + " | ".join(row) + " |" for row in [columns, ["---"] * len(columns), *rows]
    )


def markdown(result: dict[str, Any]) -> str:
    """The result as a page that says how it was made."""
    maps = [
        [str(row["rigid_groups"]), f"{row['seconds']['mlff']:.3f}", name]
        + [f"{row['seconds'][name]:.2f}", f"{row[f'ratio, {name}']:.0f}"]
        + [f"{row[f'difference, {name}']:.0e}", f"{row['load']:.1f}"]
        for row in result["maps"]
        for name in SOLVERS
    ]
    commands = [
        [str(row["rigid_groups"]), f"{row['frames']:,}", f"{row['file_mb']:.0f}"]
        + [f"{row['seconds']:.2f}", f"{row['peak_mb']:.0f}"]
        + [f"{row[f'ratio, {n}']:.0f}" if f"ratio, {n}" in row else "-" for n in SOLVERS]
        + [f"{row['load']:.1f}"]
        for row in result["commands"]
    ]
    searches = [
        [row["coordinates"], f"{row['seconds']:.3f}", str(row["pairs"]), row["relied_on"]]
        for row in result["constraints"]
    ]
    versions = ", ".join(f"{name} {value}" for name, value in result["versions"].items())
    head = ["rigid groups", "mlff (s)", "peer", "peer (s)", "ratio", "largest difference", "load"]
    of_command = ["rigid groups", "frames", "file (MB)", "time (s)", "peak (MB)"]
    of_command += [f"ratio, {name}" for name in SOLVERS] + ["load"]
    return (
        "# Force maps: time and memory\n\n"
        f"Written by `{result['command']}`: {N_ATOMS} atoms, {N_BEADS} beads; medians of "
        f"{result['repeats']} runs, {result['cpus']} CPU cores"
        f"{', ' + result['threads'] if result['threads'] else ''}, {versions}.\n\n"
        f"## The optimal map of {N_FRAMES} frames\n\n{table(head, maps)}\n\n"
        "Ours is the time from forces in memory to the weights; the peer's is that of its solver "
        "alone, one dense quadratic programme per bead on our Gram matrix, by turns with ours. Its "
        "settings are the defaults, or those of aggforce (absolute tolerance 1e-7, polished).\n\n"
        f"## `mlff project-forces`\n\n{table(of_command, commands)}\n\n"
        "The whole command with its defaults, reading, hashing and writing included, in a process "
        "of its own; the ratios are those of the peer's solver above to this time, and it has no "
        "reading, constraints, hold-out, bound and writing to do. Peak memory is the largest of "
        "the runs.\n\n"
        f"## Constraints in 100 frames\n\n"
        f"{table(['coordinates', 'time (s)', 'pairs', 'relied on'], searches)}\n"
    )


def judged(result: dict[str, Any]) -> list[str]:
    """What was to be reached, and what was."""
    lines = []
    for row in result["maps"]:
        n = row["rigid_groups"]
        reached = ", ".join(f"{row[f'ratio, {name}']:.0f} x ({name})" for name in SOLVERS)
        lines.append(f"map, {n} rigid groups: {reached} faster (target: {TARGET_RATIO[n]:.0f})")
    for row in result["commands"]:
        if row["frames"] == N_FRAMES:
            n = row["rigid_groups"]
            reached = ", ".join(f"{row[f'ratio, {name}']:.0f} x ({name})" for name in SOLVERS)
            lines.append(
                f"whole command, {n} rigid groups: {reached} faster (target: {TARGET_COMMAND:.0f})"
            )
    peaks = ", ".join(f"{r['peak_mb']:.0f} MB at {r['frames']:,}" for r in result["commands"])
    lines.append(f"peak memory {peaks} frames (target: below {TARGET_MB:.0f}, flat)")
    slowest = max(row["seconds"] for row in result["constraints"])
    return [*lines, f"constraints in {slowest:.3f} s (target: {TARGET_SECONDS})"]


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run, print and return the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--frames", type=lambda s: [int(n) for n in s.split(",")], default=FRAMES)
    parser.add_argument("--work", type=Path, help="folder for the files (default: temporary)")
    parser.add_argument("-o", "--output", type=Path, help="folder for force_map.json and .md")
    parser.add_argument("--write", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.write:
        folder, n_groups, n_frames = options.write
        print(*write_files(Path(folder), Problem(int(n_groups)), int(n_frames)))
        return {}
    threads = os.environ.get("OMP_NUM_THREADS")
    result: dict[str, Any] = {
        "command": "python -m tests.benchmarks.bench_force_map",
        "repeats": options.repeats,
        "cpus": os.cpu_count(),
        "threads": f"OMP_NUM_THREADS={threads}" if threads else "",
        "versions": {
            "Python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "scipy", "qpsolvers", "osqp")},
        },
    }
    with tempfile.TemporaryDirectory(dir=options.work) as name:
        result["commands"] = [
            whole_command(Path(name), n_groups, n_frames, options.repeats)
            for n_frames in options.frames
            for n_groups in (CASES if n_frames <= N_FRAMES else CASES[:1])
        ]
    result["maps"] = [compare_maps(n_groups, options.repeats) for n_groups in CASES]
    result["constraints"] = constraint_search(options.repeats)
    for row in result["commands"]:
        if row["frames"] == N_FRAMES:
            solver = next(r for r in result["maps"] if r["rigid_groups"] == row["rigid_groups"])
            for solver_name in SOLVERS:
                seconds = solver["seconds"][solver_name]
                row[f"ratio, {solver_name}"] = seconds / row["seconds"]
    page = markdown(result)
    print(page, *judged(result), sep="\n")
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "force_map.json").write_text(json.dumps(result, indent=2) + "\n")
        (options.output / "force_map.md").write_text(page)
    return result


if __name__ == "__main__":
    main()
