"""Which molecule a simulation of beads is of, and from where its replicas start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.data.beads.cg_npz import CGSet, is_cg_npz
from mlff_cli.data.trajectories.opening import open_trajectory, trajectory_format
from mlff_cli.data.trajectories.topology_file import read_topology
from mlff_cli.deploy.beads.molecules import molecules_of
from mlff_cli.potentials.bead_topology import BeadTopology, find_molecule

PDB = (".pdb", ".ent", ".cif", ".mmcif", ".gro")
_STARTS = {"random": 2}  # stream of random numbers: 0 is the noise's, 1 that of exchange


@dataclass(frozen=True)
class Start:
    """A molecule and its replicas' first positions.

    Attributes:
        topology: the molecule.
        positions: (B, n, 3) float64 angstrom.
        notes: what the user must be told.
    """

    topology: BeadTopology
    positions: np.ndarray
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Known:
    """The molecules of a model.

    Attributes:
        plain: of each, as `BeadTopology.plain` gives it.
        where: the model's file.
        only: whether the model computes no others, as an artifact does.
        prior: plain values of the model's prior, which may tell the beads' mapping.
    """

    plain: Sequence[Mapping[str, Any]]
    where: str
    only: bool
    prior: Mapping[str, Any] | None = None

    def find(self, name: str | None) -> BeadTopology:
        """The molecule of a name; without one, the only one.

        Raises:
            UsageError: none has the name, or there are several and no name is given.
            DataError: the model has no molecule.
        """
        wanted = [p for p in self.plain if name is None or p["name"] == name] or self.plain
        return find_molecule([BeadTopology.from_plain(p) for p in wanted], name, self.where)

    def matching(self, name: str | None, n_beads: int, where: str) -> BeadTopology:
        """The molecule of a name; without one, the only one of so many beads.

        Raises:
            UsageError: see `find`.
            DataError: there is none of so many beads.
        """
        if name is not None:
            found = self.find(name)
        else:
            fitting = [p for p in self.plain if len(p["types"]) == n_beads]
            if len(fitting) > 1:
                return self.find(None)  # which says what there is to choose from
            if not fitting:
                sizes = ", ".join(f"{p['name']} ({len(p['types'])})" for p in self.plain[:8])
                raise DataError(
                    f"the structure must have as many beads as a molecule of the model, found "
                    f"{n_beads}; the model has {sizes or 'none'}",
                    where=where,
                    remedy="give beads, not atoms: `mlff cg-map` makes them",
                )
            found = BeadTopology.from_plain(fitting[0])
        if found.n_beads != n_beads:
            raise DataError(
                f"{found.name!r} has {found.n_beads} beads, the structure {n_beads}",
                where=where,
                remedy="choose another --molecule, or a structure of this one",
            )
        return found


def find_start(
    known: Known,
    structure: Path | None,
    molecule: str | None,
    start: str,
    n_replicas: int,
    seed: int,
) -> Start:
    """The molecule, and where its replicas start.

    Args:
        known: molecules of the model.
        structure: a CG NPZ, H5MD, PDB, mmCIF or GRO file of beads; None takes the model's frame.
        molecule: its name, where there are several.
        start: "first", "random" (frames of the structure) or "model" (the model's frame).
        n_replicas: B.
        seed: of "random".

    Raises:
        UsageError: the structure is none of these, or `molecule` is needed or unknown.
        DataError: no molecule fits, or there is no frame.
    """
    if structure is None or start == "model":
        topology = known.find(molecule)
        if topology.start is None:
            raise DataError(
                f"the model keeps no frame of {topology.name!r} to start from",
                where=known.where,
                remedy="name a structure: a CG NPZ or H5MD file, or a PDB file of beads",
            )
        return Start(topology, np.repeat(topology.start[None], n_replicas, axis=0))
    draw = np.random.default_rng([seed, _STARTS["random"]]) if start == "random" else None
    if structure.suffix.lower() == ".npz" and is_cg_npz(structure):
        return _of_set(known, structure, molecule, draw, n_replicas)
    if structure.suffix.lower() in PDB:
        return _of_pdb(known, structure, molecule, n_replicas)
    if structure.is_file() and trajectory_format(structure) is None:
        raise UsageError(
            "a structure is a CG NPZ or H5MD file, or a PDB, mmCIF or GRO file of beads",
            where=str(structure),
            remedy="make one with `mlff cg-map`, or leave it out to start from the model's frame",
        )
    return _of_trajectory(known, structure, molecule, draw, n_replicas)


def _chosen(rows: np.ndarray, draw: np.random.Generator | None, n: int) -> np.ndarray:
    """Rows (n,) to start from: the first for all, or n drawn ones, none twice if they suffice."""
    if draw is None:
        return np.repeat(rows[:1], n)
    return draw.choice(rows, n, replace=n > len(rows))


def _of_set(
    known: Known, path: Path, molecule: str | None, draw: np.random.Generator | None, n: int
) -> Start:
    with CGSet(path) as cg:
        molecules = molecules_of(cg)
        wanted = molecule
        if wanted is None and len(molecules) > 1 and known.only:
            wanted = known.find(None).name
        topology = find_molecule(molecules, wanted, str(path))
        k = [one.name for one in molecules].index(topology.name)
        rows = np.flatnonzero(cg.per_frame("molecule") == k)
        if not len(rows):
            raise DataError(f"the set has no frame of {topology.name!r}", where=str(path))
        chosen = _chosen(rows, draw, n)
        unique, inverse = np.unique(chosen, return_inverse=True)
        frames = np.concatenate([block.R for block in cg.blocks(unique, forces=False)])
        notes = [*cg.notes, *_other_mapping(known, cg)]
        theirs = _same(known, topology)
        if theirs is not None:
            topology = theirs
        elif known.only:
            mine = known.find(None)
            raise DataError(
                f"the artifact is of {mine.name!r} ({mine.n_beads} beads), the structure's "
                f"{topology.name!r} has other types of beads ({topology.n_beads})",
                where=str(path),
                remedy="compile the model for this molecule, or run the model file itself",
            )
        else:
            notes += [
                f"{topology.name!r} is no molecule that the model was trained on",
                *molecules.notes,
            ]
    return Start(topology, frames.astype(np.float64)[inverse], notes)


def _other_mapping(known: Known, cg: CGSet) -> list[str]:
    """A note where the beads of a set are of another mapping than the model's."""
    prior = known.prior if isinstance(known.prior, Mapping) else {}  # a file may hold anything
    mine, theirs = str(prior.get("mapping", "unknown")), cg.mappings()
    if mine in ("", "unknown") or not theirs - {mine}:
        return []
    return [
        f"{cg.path} holds beads of {', '.join(map(repr, sorted(theirs)))}, the model's prior is of "
        f"the mapping {mine!r}: types of one name may be other beads"
    ]


def _same(known: Known, topology: BeadTopology) -> BeadTopology | None:
    """The model's molecule with the same types in the same order, best of the same name."""
    found = [p for p in known.plain if tuple(p["types"]) == topology.types]
    found.sort(key=lambda p: p["name"] != topology.name)
    for plain in found:
        mine = BeadTopology.from_plain(plain)
        if np.array_equal(mine.terms.bonds, topology.terms.bonds):
            return mine
    return None


def _of_pdb(known: Known, path: Path, molecule: str | None, n: int) -> Start:
    found = read_topology(path)
    assert found.positions is not None  # these formats have coordinates
    topology = known.matching(molecule, len(found.positions), str(path))
    names = [(a.residue.name, a.name) for a in found.topology.atoms]
    x = np.repeat(found.positions.astype(np.float64)[None], n, axis=0)
    return Start(topology, x, _other_names(topology, names, path))


def _of_trajectory(
    known: Known, path: Path, molecule: str | None, draw: np.random.Generator | None, n: int
) -> Start:
    with open_trajectory(path, of_beads=True) as trajectory:
        topology = known.matching(molecule, trajectory.n_atoms, str(path))
        unique, inverse = np.unique(
            _chosen(np.arange(trajectory.n_frames), draw, n), return_inverse=True
        )
        positions = trajectory.read(unique).positions
        assert positions is not None
        notes: list[str] = []
        if trajectory.topology is not None:
            names = [(a.residue.name, a.name) for a in trajectory.topology.atoms]
            notes = _other_names(topology, names, path)
    return Start(topology, positions.astype(np.float64)[inverse], notes)


def _other_names(topology: BeadTopology, names: Sequence[tuple[str, str]], path: Path) -> list[str]:
    """A note where a structure calls beads otherwise than the model does."""
    mine = [
        (residue[:3], bead[:4])
        for residue, bead in zip(topology.residue_names, topology.bead_names, strict=True)
    ]
    theirs = [(residue[:3], bead[:4]) for residue, bead in names]
    odd = [k for k in range(len(mine)) if mine[k] != theirs[k]]
    if not odd:
        return []
    k = odd[0]
    return [
        f"{path}: {len(odd)} of {len(mine)} beads are called otherwise than in "
        f"{topology.name!r} (bead {k}: {' '.join(theirs[k])}, the model has {' '.join(mine[k])}); "
        "beads are taken in their order"
    ]
