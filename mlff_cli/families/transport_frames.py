"""Frames that a flow is evaluated on: of one temperature, in the order of time, run after run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mlff_cli.core.errors import DataError
from mlff_cli.core.units import KJ_PER_KCAL
from mlff_cli.data.beads.conformations import conformations_of_trajectory
from mlff_cli.data.temperatures import Temperatures
from mlff_cli.data.trajectories.frame_choice import frame_temperatures
from mlff_cli.data.trajectories.h5md import H5MDTrajectory
from mlff_cli.flows.molecule import FlowMolecule
from mlff_cli.physics.energies import EnergyEngine

MOST = 20_000  # frames of a temperature; of more, every s-th of each series
FEWEST = 20
NM = 0.1  # per angstrom


def evaluated_frames(
    paths: Sequence[Path],
    molecule: FlowMolecule,
    kelvin: float,
    discard: float = 0.0,
    engine: EnergyEngine | None = None,
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Frames of one temperature.

    Args:
        paths: trajectories of `mlff sample`; those without this temperature give nothing.
        molecule: the flow's.
        kelvin: temperature.
        discard: ps at the beginning of every file that are left out.
        engine: of the flow's energy; where given, recorded energies must be the same.

    Returns:
        positions (n, N, 3) in nm, series after series, and the frames of each series.

    Raises:
        DataError: a file is of another molecule or force field, was sampled with constraints, or
            there are fewer than `FEWEST` frames in all.
        UsageError: all frames of a file are left out.
    """
    positions: list[np.ndarray] = []
    lengths: list[int] = []
    for path in paths:
        with H5MDTrajectory(path) as trajectory:
            _require_same(trajectory, molecule)
            told = Temperatures.of(frame_temperatures(trajectory))
            if told.number(kelvin) is None:
                continue
            found = conformations_of_trajectory(
                trajectory, molecule.n_atoms, kelvin, discard=discard
            )
            x = np.concatenate(list(found.blocks()))
            positions.append(found.series(x).astype(np.float64) * NM)
            lengths += found.lengths
            if engine is not None:
                _require_same_energies(trajectory, found.rows, kelvin, engine)
    if sum(lengths) < FEWEST:
        raise DataError(
            f"a flow from or to {kelvin:g} K needs at least {FEWEST} frames of it, found "
            f"{sum(lengths)}",
            where=", ".join(map(str, paths)),
            remedy="give trajectories of `mlff sample` with both of the flow's temperatures",
        )
    return _thinned(np.concatenate(positions), lengths)


def _thinned(x: np.ndarray, lengths: Sequence[int]) -> tuple[np.ndarray, tuple[int, ...]]:
    """Every s-th frame of each series, as many as `MOST` allows."""
    every = -(-len(x) // MOST)
    parts = [part[::every] for part in np.split(x, np.cumsum(lengths)[:-1])]
    return np.concatenate(parts), tuple(map(len, parts))


def _require_same(trajectory: H5MDTrajectory, molecule: FlowMolecule) -> None:
    where = str(trajectory.path)
    if trajectory.numbers is None or not np.array_equal(trajectory.numbers, molecule.numbers):
        told = "none" if trajectory.numbers is None else f"{len(trajectory.numbers)} atoms"
        raise DataError(
            f"a flow carries the {molecule.n_atoms} atoms that it was trained on, in their order: "
            f"the file's elements are others ({told})",
            where=where,
            remedy="give trajectories of the molecule that the flow was trained on",
        )
    if (constraints := trajectory.facts.get("constraints")) != "none":
        told = "does not say" if constraints is None else f"used {constraints!r}"
        raise DataError(
            f"transport needs frames that were sampled without constraints, the file {told}",
            where=where,
            remedy="sample again with `mlff sample --constraints none`",
        )


def _require_same_energies(
    trajectory: H5MDTrajectory, rows: np.ndarray, kelvin: float, engine: EnergyEngine
) -> None:
    """Refuse frames of another force field: their weights would mean nothing."""
    # here, because it brings OpenMM
    from mlff_cli.physics.forcefield.recorded import check_recorded

    frames = trajectory.read(rows)
    if frames.energy is not None and frames.positions is not None:
        x = np.asarray(frames.positions, np.float64) * NM
        recorded = np.asarray(frames.energy, np.float64) * KJ_PER_KCAL
        where = f"{trajectory.path}, frames of {kelvin:g} K"
        check_recorded(engine, x, recorded, where=where)
