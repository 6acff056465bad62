"""Findings about a trajectory: what `mlff check` says of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mlff_cli.core.checks import Check
from mlff_cli.core.errors import DataError
from mlff_cli.data.temperatures import Temperatures
from mlff_cli.data.trajectories.frame_survey import ForceStatistics, fingerprints, repeats
from mlff_cli.data.trajectories.opening import Trajectory, chunks, holds_beads

OUTLIER = 10.0  # times the root mean square of |F|
ENERGY = 8.0  # standard deviations
BALANCED = 1e-3  # share of the root mean square of |F|: atoms that push nothing but each other


def check_trajectory(data: Trajectory, advance: Callable[[int], None]) -> list[Check]:
    """All findings about a trajectory; it is read once.

    Args:
        data: the trajectory.
        advance: told how many frames were read since it was last called.
    """
    facts = ", ".join(f"{k} {v}" for k, v in data.facts.items() if isinstance(v, str | int | float))
    rounded = f", coordinates rounded to {data.precision:g} A" if data.precision else ""
    unit = "beads" if holds_beads(data) else "atoms"
    checks = [
        Check(
            "contents",
            f"{data.format}: {data.n_frames} frames of {data.n_atoms} {unit}, "
            f"{'with' if data.has_forces else 'without'} forces{rounded}",
        )
    ]
    checks += [Check("recorded", facts)] if facts else []
    fits = data.facts.get("checked")
    if data.topology is not None and fits:
        told = f"{data.topology.n_residues} residues; fits the frames: {', '.join(fits)}"
        checks.append(Check("topology", told))
    checks += [Check("file", note, "warning") for note in data.notes]
    forces, digests = ForceStatistics(), list[bytes]()
    energies, temperatures = list[np.ndarray](), list[np.ndarray]()
    try:
        for rows in chunks(np.arange(data.n_frames), data.n_atoms):
            frames = data.read(rows, forces=data.has_forces)
            if frames.positions is not None:
                digests += fingerprints(frames.positions)
            if frames.forces is not None:
                forces.add(frames.forces, np.ones(frames.forces.shape[:2], dtype=bool))
            if frames.energy is not None:
                energies.append(frames.energy)
            if frames.temperature is not None:
                temperatures.append(frames.temperature)
            advance(len(rows))
    except DataError as error:
        return [*checks, Check.failed("frames", error)]
    checks.append(Check("finite", "all values of all frames"))
    checks += _forces(forces) if data.has_forces else []
    checks += _energies(energies, temperatures)
    return [*checks, _repeated(digests)]


def _forces(f: ForceStatistics) -> list[Check]:
    largest, atoms, net = (np.concatenate(x) for x in (f.largest, f.bead, f.net))
    size = np.sqrt(3) * f.rms_component  # root mean square of |F|
    row = int(largest.argmax())
    told = (
        f"mean |F| {f.mean:.3g}, largest {largest[row]:.4g} (frame {row}, atom {atoms[row]}), RMS "
        f"per component {f.rms_component:.3g} kcal/mol/A"
    )
    far = int((largest > OUTLIER * size).sum())
    checks = [Check("forces", told)]
    if size == 0:
        checks = [Check("forces", "every force is zero", "warning", "was the force written?")]
    elif far:
        remedy = f"look at frame {row}: did the dynamics break there?"
        found = f"{told}; {far} frames with more than {OUTLIER:g} times the root mean square"
        checks = [Check("forces", found, "warning", remedy)]
    mean_net = float(np.sqrt((net * net).mean()))
    balanced = mean_net <= BALANCED * size
    why = "none: an isolated system" if balanced else "not zero: solvent left out, or a mesh"
    return [*checks, Check("net force", f"RMS {mean_net:.3g} kcal/mol/A, {why}")]


def _energies(energies: list[np.ndarray], temperatures: list[np.ndarray]) -> list[Check]:
    checks = []
    T = np.concatenate(temperatures) if temperatures else np.empty(0)
    found = Temperatures.of(T)
    if found.kelvin:
        counts = np.bincount(found.group[found.group >= 0])
        told = ", ".join(f"{t:g} K: {n}" for t, n in zip(found.kelvin, counts, strict=True))
        checks.append(Check("temperatures", f"frames at {told}"))
    if not energies:
        return checks
    U = np.concatenate(energies)
    each = found.kelvin if len(T) == len(U) and found.kelvin else (None,)
    for k, t in enumerate(each):
        here = np.arange(len(U)) if t is None else np.flatnonzero(found.group == k)
        mean, spread = float(U[here].mean()), float(U[here].std())
        worst = here[np.abs(U[here] - mean).argmax()]
        at = "" if t is None else f" at {t:g} K"
        told = f"{mean:.2f} +- {spread:.2f} kcal/mol{at}"
        if spread and abs(U[worst] - mean) > ENERGY * spread:
            told += f"; frame {worst} has {U[worst]:.2f}"
            checks.append(Check("energy", told, "warning", f"look at frame {worst}"))
        else:
            checks.append(Check("energy", told))
    return checks


def _repeated(digests: list[bytes]) -> Check:
    count, first = repeats(digests)
    if first is None:
        return Check("repeated frames", "none")
    return Check(
        "repeated frames",
        f"{count} of {len(digests)} repeat an earlier one, first {first[1]} is {first[0]} again",
        "warning",
        "join trajectories without the frame that both have",
    )
