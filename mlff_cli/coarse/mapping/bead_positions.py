"""Positions of beads from positions of atoms, as streams.

    R_I = sum_i M_Ii r_i   over the few atoms i of bead I, in float64

The sum runs over the atoms of a bead in their order, whatever else is mapped with it: a frame's
beads have the same bits in any chunk.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from mlff_cli.core.cluster import crew
from mlff_cli.core.reporting import Reporter
from mlff_cli.data.beads.cg_beads import BeadMolecule
from mlff_cli.data.beads.force_sources import ForceSources
from mlff_cli.data.trajectories.assembly import assembled
from mlff_cli.data.trajectories.opening import CHUNK_BYTES, chunks, split_selection
from mlff_cli.data.trajectories.whole import BondTree

TASK_CHUNKS = 4  # chunks of frames (`data.trajectories.frames.chunks`) in one task


class BeadMap:
    """Maps frames of atoms to beads.

    Args:
        molecule: with a mapping.
    """

    def __init__(self, molecule: BeadMolecule) -> None:
        assert molecule.mapping is not None
        self._index = molecule.atom_index.astype(np.int64)
        bead, atom = np.nonzero(molecule.mapping)  # bead by bead
        self._atoms = atom
        self._weights = molecule.mapping[bead, atom]
        self._first = np.searchsorted(bead, np.arange(molecule.n_beads))
        self._tree = BondTree(molecule.n_atoms, molecule.atom_bonds)

    def __call__(self, positions: np.ndarray, box: np.ndarray | None) -> np.ndarray:
        """Positions of beads.

        Args:
            positions: (T, N, 3) of all atoms of the trajectory, angstrom.
            box: (T, 3, 3) edge vectors in rows, angstrom, or None.

        Returns:
            (T, n, 3) float64; molecules whole and next to one another.
        """
        x = positions[:, self._index]
        x = assembled(self._tree.make_whole(x, box), box, self._tree.molecule)
        terms = x[:, self._atoms].astype(np.float64) * self._weights[:, None]  # [t, atoms, x]
        return np.asarray(np.add.reduceat(terms, self._first, axis=1))


def map_frames(
    paths: Sequence[str],
    rows: Sequence[np.ndarray],
    n_atoms: Sequence[int],
    molecule: BeadMolecule,
    *,
    workers: int,
    scheduler: str | None,
    reporter: Reporter,
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Beads of chosen frames, in pieces that do not depend on who maps them.

    Args:
        paths: absolute, of the trajectories.
        rows: of each trajectory, the rows to take, ascending.
        n_atoms: of each trajectory.
        molecule: with a mapping.
        workers: see `core.cluster.crew`.
        scheduler: see `core.cluster.crew`.
        reporter: who listens.

    Yields:
        Number of the trajectory, (T,) rows in it, and (T, n, 3) float32 positions, in order.

    Raises:
        DataError: a trajectory is damaged or holds values that are not finite.
    """
    tasks = [(k, piece) for k, r in enumerate(rows) for piece in _pieces(r, n_atoms[k])]
    files = [split_selection(p)[0] for p in paths]
    with (
        crew(
            _prepare,
            (tuple(paths), molecule),
            workers=workers,
            scheduler=scheduler,
            reporter=reporter,
            inputs=files,
        ) as mappers,
        reporter.progress(sum(map(len, rows)), "mapping", "frames") as bar,
    ):
        for (k, piece), R in zip(tasks, mappers.map(tasks), strict=True):
            yield k, piece, R
            bar.advance(len(piece))


def _pieces(rows: np.ndarray, n_atoms: int) -> Iterator[np.ndarray]:
    """Rows of one task each."""
    step = TASK_CHUNKS * max(1, CHUNK_BYTES // (48 * n_atoms))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def _prepare(
    paths: Sequence[str], molecule: BeadMolecule
) -> Callable[[int, np.ndarray], np.ndarray]:
    to_beads = BeadMap(molecule)
    sources = ForceSources(dict(enumerate(paths)))

    def work(k: int, rows: np.ndarray) -> np.ndarray:
        """Beads (T, n, 3) float32 of some rows of trajectory k."""
        found = []
        for some in chunks(rows, sources[k].n_atoms):
            frames = sources[k].read(some)
            assert frames.positions is not None
            found.append(to_beads(frames.positions, frames.box).astype(np.float32))
        return np.concatenate(found)

    weakref.finalize(work, sources.close)  # files close when the crew is gone
    return work
