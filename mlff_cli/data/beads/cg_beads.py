"""What a bead molecule is, and a piece of its trajectory, without padding."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mlff_cli.core.errors import DataError


def _empty(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.int32)


@dataclass(frozen=True)
class BeadMolecule:
    """One coarse-grained molecule: its beads, and how atoms make them. n beads, N atoms.

    Attributes:
        name: what it is called, as the stem of its topology file.
        species: (n,) int32, rows of the set's species table.
        residue: (n,) int32 number of the bead's residue in its chain, as the topology numbers it.
        residue_name: (n,) text, as the topology spells it.
        bead_name: (n,) text, as "CA".
        chain: (n,) int32, 0 for the first chain.
        bonds: (b, 2) int32 pairs of beads, ascending.
        mapping: (n, N) float64, positions: beads = mapping @ atoms; rows sum to 1. None in a set
            that does not say.
        elements: (N,) int32 atomic numbers of the atoms.
        atom_bonds: (m, 2) int32 bonds of the atoms, pairs ascending.
        atom_index: (N,) int32 where these atoms stand in a frame of the trajectories, as water and
            ions are left out; all of them in order where it is not given.
        force_map: (n, N) float64, forces: beads = force_map @ atoms; None before forces are
            projected.

    Raises:
        DataError: shapes that do not belong together, or bonds to beads or atoms there are not.
    """

    name: str
    species: np.ndarray
    residue: np.ndarray
    residue_name: np.ndarray
    bead_name: np.ndarray
    chain: np.ndarray
    bonds: np.ndarray
    mapping: np.ndarray | None = None
    elements: np.ndarray = field(default_factory=lambda: _empty(0))
    atom_bonds: np.ndarray = field(default_factory=lambda: _empty(0, 2))
    force_map: np.ndarray | None = None
    atom_index: np.ndarray = field(default_factory=lambda: _empty(0))

    def __post_init__(self) -> None:
        n, N = len(self.species), len(self.elements)
        if not len(self.atom_index):
            object.__setattr__(self, "atom_index", np.arange(N, dtype=np.int32))
        wanted = {name: (n,) for name in ("residue", "residue_name", "bead_name", "chain")}
        maps = {k: (n, N) for k in ("mapping", "force_map") if getattr(self, k) is not None}
        for name, shape in {**wanted, **maps, "atom_index": (N,)}.items():
            if getattr(self, name).shape != shape:
                raise DataError(
                    f"{name} of molecule {self.name!r} must have shape {shape} for {n} beads and "
                    f"{N} atoms, found {getattr(self, name).shape}"
                )
        for name, count in (("bonds", n), ("atom_bonds", N)):
            pairs = getattr(self, name)
            if pairs.ndim != 2 or pairs.shape[1] != 2 or not ((pairs >= 0) & (pairs < count)).all():
                raise DataError(
                    f"{name} of molecule {self.name!r} must be pairs of 0 to {count - 1}, found "
                    f"shape {pairs.shape} of {pairs.min(initial=0)} to {pairs.max(initial=0)}"
                )

    @property
    def n_beads(self) -> int:
        """Beads, n."""
        return len(self.species)

    @property
    def n_atoms(self) -> int:
        """Atoms that the beads are made of, N; 0 where nothing is said of them."""
        return len(self.elements)


def plain_chain(name: str, species: np.ndarray) -> BeadMolecule:
    """A molecule of which only species are known, taken as one chain of one bead per residue.

    Args:
        name: what to call it.
        species: (n,) of its beads along the chain.
    """
    n = len(species)
    k = np.arange(n, dtype=np.int32)
    return BeadMolecule(
        name=name,
        species=species.astype(np.int32),
        residue=k + 1,
        residue_name=np.full(n, "UNK"),  # the PDB's name for what is not known
        bead_name=np.full(n, "", "<U1"),
        chain=np.zeros(n, np.int32),
        bonds=np.stack([k[:-1], k[1:]], axis=1),
    )


@dataclass(frozen=True)
class CGBlock:
    """Some frames of one molecule, real beads only.

    Attributes:
        molecule: its index in the set.
        R: (T, n, 3) positions, angstrom.
        source: (T,) int32 rows of the set's `sources`; -1 not known.
        frame: (T,) int64 rows in that trajectory.
        temperature: (T,) float32 K; NaN not known.
        F: (T, n, 3) forces, kcal/mol/angstrom; None in a set without forces.
        rows: (T,) int64 rows of the set that they were read from; a writer ignores them.
    """

    molecule: int
    R: np.ndarray
    source: np.ndarray
    frame: np.ndarray
    temperature: np.ndarray
    F: np.ndarray | None = None
    rows: np.ndarray | None = None


@dataclass(frozen=True)
class CGFrames:
    """Some frames of a set as they are stored: padded to the largest molecule.

    Attributes:
        rows: (T,) int64 rows of the set.
        R: (T, n, 3) positions, angstrom; of padding: anything.
        F: (T, n, 3) forces, kcal/mol/angstrom, or None.
        species: (T, n) int32; of padding: anything.
        mask: (T, n) bool, True for real beads.
    """

    rows: np.ndarray
    R: np.ndarray
    F: np.ndarray | None
    species: np.ndarray
    mask: np.ndarray
