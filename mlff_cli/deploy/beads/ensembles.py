"""A simulation of beads beside its reference: free energies along collective variables.

The reference is a coarse-grained set, or a trajectory of the atoms that is mapped as the set was,
the simulation one or several trajectories of beads. Both are read once, in blocks; what is kept are
their collective variables. Slow modes are fitted to the reference, where its frames are evenly
spaced, and both are projected on them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlff_cli.coarse.mapping.bead_positions import BeadMap
from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.core.reporting import Reporter
from mlff_cli.data.beads.cg_beads import BeadMolecule
from mlff_cli.data.beads.cg_npz import CGSet, is_cg_npz
from mlff_cli.data.beads.conformations import (
    Beads,
    Conformations,
    conformations_of_set,
    conformations_of_trajectory,
)
from mlff_cli.data.trajectories.opening import open_trajectory
from mlff_cli.data.trajectories.topology_file import read_topology
from mlff_cli.physics.ensembles.backbone import Sites
from mlff_cli.physics.ensembles.collective_variables import MODES, CollectiveVariables, Variable
from mlff_cli.physics.ensembles.landscapes import Landscape, Values, landscape
from mlff_cli.physics.ensembles.slow_modes import SlowModes, slow_modes
from mlff_cli.potentials.bead_topology import BeadTopology

DRIFT = 5.0  # times the floor: halves of the reference in order that differ more are told


@dataclass(frozen=True)
class Wanted:
    """What is compared, and how.

    Attributes:
        simulation: trajectories of beads.
        reference: trajectory or set.
        topology: of the molecule.
        mapping: the molecule with its mapping, for a reference of atoms; None where it is unknown.
        native: (n, 3) angstrom, what RMSD and contacts refer to; None takes the first frame of the
            reference.
        kelvin: temperature; None takes the reference's own.
        bins: of each axis.
        discard: ps left out at the beginning of every simulation.
        lag: of the slow modes, in frames of the reference.
        seed: of the frames that are drawn.
    """

    simulation: tuple[Path, ...]
    reference: Path
    topology: BeadTopology
    mapping: BeadMolecule | None = None
    native: np.ndarray | None = None
    kelvin: float | None = None
    bins: int = 36
    discard: float = 0.0
    lag: int = 10
    seed: int = 0


@dataclass(frozen=True)
class Compared:
    """The landscapes, and what was found on the way.

    Attributes:
        planes: of two variables.
        profiles: of one.
        kelvin: temperature of both.
        frames: of reference and simulation.
        series: runs in reference and simulation.
        timescales: of the slow modes, in frames of the reference; empty without modes.
        notes: what a user must be told.
    """

    planes: list[Landscape]
    profiles: list[Landscape]
    kelvin: float
    frames: tuple[int, int]
    series: tuple[int, int]
    timescales: list[float]
    notes: list[str] = field(default_factory=list)


def compare_ensembles(wanted: Wanted, gas_constant: float, reporter: Reporter) -> Compared:
    """Read both ensembles and compare them.

    Args:
        wanted: see `Wanted`.
        gas_constant: kcal/mol/K.
        reporter: who listens.

    Raises:
        UsageError: no temperature is known, or one of them has no frame of it.
        DataError: a file is damaged, or of another molecule.
    """
    with ExitStack() as files:
        reference = files.enter_context(_opened(wanted.reference, wanted, wanted.kelvin, 0.0))
        kelvin = wanted.kelvin or reference.kelvin
        if kelvin is None:
            raise UsageError(
                "the temperature of the frames is needed, the reference does not say it",
                where=str(wanted.reference),
                remedy="pass --temperature, as --temperature 300",
            )
        runs = [
            files.enter_context(_opened(path, wanted, kelvin, wanted.discard))
            for path in wanted.simulation
        ]
        notes = [note for one in (reference, *runs) for note in one.notes]
        native = wanted.native if wanted.native is not None else next(reference.blocks())[0]
        cv = CollectiveVariables(sites_of(wanted.topology), native, wanted.topology.masses)
        total = reference.n_frames + sum(run.n_frames for run in runs)
        with reporter.progress(total, "conformations", "frames") as bar:
            values, features = _read([reference], cv, None, bar.advance)
            modes = _modes(reference, features, wanted.lag, notes)
            simulated, projected = _read(runs, cv, modes, bar.advance)
    variables: tuple[Variable, ...] = cv.variables
    lengths = (reference.lengths, tuple(n for run in runs for n in run.lengths))
    ensembles = [
        Values.of(v, n, variables) for v, n in zip((values, simulated), lengths, strict=True)
    ]
    surfaces = list(cv.surfaces)
    if modes is not None and modes.modes.shape[1] == len(MODES):
        parts = (modes.project(features), projected)
        ensembles = [
            e.joined(Values.of(p, n, MODES))
            for e, p, n in zip(ensembles, parts, lengths, strict=True)
        ]
        surfaces.append((len(variables), len(variables) + 1))
        variables = (*variables, *MODES)
    made = [
        landscape(
            columns,
            variables,
            *ensembles,
            bins=wanted.bins,
            kt=gas_constant * kelvin,
            seed=wanted.seed,
        )
        for columns in (*surfaces, *([k] for k in range(len(variables))))
    ]
    planes, profiles = made[: len(surfaces)], made[len(surfaces) :]
    notes += _doubts(made, wanted)
    return Compared(
        planes,
        profiles,
        kelvin,
        (sum(lengths[0]), sum(lengths[1])),
        (len(lengths[0]), len(lengths[1])),
        [] if modes is None else [float(t) for t in modes.timescales],
        notes,
    )


def sites_of(topology: BeadTopology) -> Sites:
    """The beads of a molecule by their names."""
    return Sites(
        topology.bead_names,
        topology.residue_names,
        topology.residues,
        topology.chains,
        topology.terms.bonds,
    )


def native_structure(
    path: Path | None, topology: BeadTopology, mapping: BeadMolecule | None
) -> np.ndarray | None:
    """The native structure (n, 3) in angstrom of a file of beads, or of atoms that are mapped.

    Args:
        path: PDB or anything that `read_topology` reads; None gives None.
        topology: of the molecule.
        mapping: the molecule with its mapping, where it is known.

    Raises:
        DataError: it has neither the beads nor the atoms, or no positions.
    """
    if path is None:
        return None
    x = read_topology(path).positions
    if x is not None and len(x) == topology.n_beads:
        return x
    known = mapping is not None and mapping.mapping is not None
    if x is None or not known or mapping.atom_index.max(initial=-1) >= len(x):  # type: ignore[union-attr]
        raise DataError(
            f"the native structure needs {topology.n_beads} beads or the atoms that they are made "
            f"of, found {0 if x is None else len(x)} positions",
            where=str(path),
            remedy="pass a PDB of the topology that was given to `mlff cg-map`",
        )
    assert mapping is not None
    return np.asarray(BeadMap(mapping)(x[None], None)[0])


@contextmanager
def _opened(
    path: Path, wanted: Wanted, kelvin: float | None, discard: float
) -> Iterator[Conformations]:
    """Frames of a set, of a trajectory of beads, or of a trajectory of atoms."""
    topology = wanted.topology
    if path.suffix == ".npz" and is_cg_npz(path):
        if discard:
            raise UsageError(
                f"{discard:g} ps are to be left out, and a set tells no times",
                where=str(path),
                remedy="leave --discard out, or pass the trajectory",
            )
        with CGSet(path) as cg:
            yield conformations_of_set(cg, _number(cg, topology), kelvin)
        return
    with open_trajectory(path, of_beads=True) as trajectory:
        beads: Beads | None = None
        if trajectory.n_atoms != topology.n_beads:
            beads = _mapped(wanted.mapping, trajectory.n_atoms, topology, str(path))
        found = conformations_of_trajectory(trajectory, topology.n_beads, kelvin, beads, discard)
        if trajectory.facts.get("start") == "random" and not discard:
            found.notes.append(
                f"{path}: its replicas began at frames drawn from a structure; what they remember "
                "of it counts as the model's: leave it out with --discard"
            )
        yield found


def _number(cg: CGSet, topology: BeadTopology) -> int:
    """Which molecule of a set it is: by its name, or the only one, with as many beads."""
    names = [cg.molecules.bare(k).name for k in range(len(cg.molecules))]
    k = names.index(topology.name) if topology.name in names else 0
    sizes = [len(layout.species) for layout in cg.layouts]
    if (topology.name not in names and len(sizes) > 1) or sizes[k] != topology.n_beads:
        raise DataError(
            f"the set has no molecule {topology.name!r} of {topology.n_beads} beads, found "
            + ", ".join(f"{n} ({s} beads)" for n, s in zip(names or ["?"], sizes, strict=False)),
            where=str(cg.path),
            remedy="choose one with --molecule, or pass the set that it is in",
        )
    return k


def _mapped(molecule: BeadMolecule | None, n: int, topology: BeadTopology, where: str) -> Beads:
    """How atoms of a trajectory become beads."""
    if molecule is None or molecule.mapping is None or molecule.atom_index.max(initial=-1) >= n:
        raise DataError(
            f"{topology.n_beads} beads are needed, found {n} atoms that the set cannot map",
            where=where,
            remedy="pass beads, or data of `mlff cg-map`, which keep their mapping",
        )
    return BeadMap(molecule)


def _read(
    runs: Sequence[Conformations], cv: CollectiveVariables, modes: SlowModes | None, advance: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Collective variables, and features or their projection, series after series."""
    values, others = [], []
    for run in runs:
        v, w = [], []
        for x in run.blocks():
            v.append(cv.values(x))
            features = cv.features(x)
            w.append(features if modes is None else modes.project(features).astype(np.float32))
            advance(len(x))
        values.append(run.series(np.concatenate(v)))
        others.append(run.series(np.concatenate(w)))
    return np.concatenate(values), np.concatenate(others)


def _modes(
    reference: Conformations, features: np.ndarray, lag: int, notes: list[str]
) -> SlowModes | None:
    """Slow modes of the reference; a note where it has none."""
    if reference.spacing is None:
        notes.append(
            f"{reference.where}: frames are not evenly spaced in time, so that there are no slow "
            "modes (TICA); leave --frames of `mlff cg-map` out, or use --stride"
        )
        return None
    try:
        ends = np.cumsum(reference.lengths)[:-1]
        return slow_modes(np.split(features, ends), lag, len(MODES))
    except DataError as error:
        notes.append(f"{reference.where}: no slow modes (TICA): {error.message}")
        return None


def _doubts(made: Sequence[Landscape], wanted: Wanted) -> list[str]:
    """What makes the comparison doubtful."""
    few = [m for m in made if m.comparison is None]
    notes = []
    if few:
        notes.append(
            f"no divergence of {len(few)} of {len(made)} landscapes: {few[0].name}: {few[0].why}"
        )
    drifting = [
        m.name
        for m in made
        if m.comparison is not None and m.comparison.in_order > DRIFT * m.comparison.floor.mean
    ]
    if drifting:
        shown = "; ".join(drifting[:3]) + (f" and {len(drifting) - 3} more" if drifting[3:] else "")
        notes.append(
            f"{wanted.reference}: its first and last frames differ more than chance explains along "
            f"{shown}: it may not be sampled long enough to judge a simulation by"
        )
    return notes
