"""The two passes over atomic forces: their Gram matrices, and the map applied to them.

Both are cut into pieces that depend on the set alone. Partial Gram matrices are summed in the order
of the pieces, so that one process, several, or a cluster give the same.
"""

from __future__ import annotations

import dataclasses
import functools
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mlff_cli.coarse.forces.device_gram import DeviceGram
from mlff_cli.coarse.forces.force_fit import Recipe
from mlff_cli.coarse.forces.force_map import ForceMap
from mlff_cli.coarse.forces.force_split import HELD_OUT, Split
from mlff_cli.coarse.forces.gram import Gram, reduce_groups
from mlff_cli.coarse.forces.noise import add_noise, frame_noise
from mlff_cli.core.errors import DataError
from mlff_cli.core.reporting import Progress
from mlff_cli.core.tasks import Crew
from mlff_cli.data.beads.cg_npz import CGBlock, CGSet
from mlff_cli.data.beads.force_rows import Rows, pieces, read_frames
from mlff_cli.data.beads.force_sources import ForceSources
from mlff_cli.data.beads.map_store import MapStore, Place

OF_FRAMES = ("R", "F", "source", "frame", "temperature", "rows")  # of a CGBlock

Work = Callable[..., Any]


def prepare(paths: Mapping[int, str]) -> Work:
    """What a worker runs: a pass by name, over some frames of one source.

    The last force map is kept: pieces of a molecule follow one another.
    """
    sources = ForceSources(paths)
    read = functools.lru_cache(maxsize=1)(Place.read)

    def work(name: str, source: int, *arguments: Any) -> Any:
        known = [read(a) if isinstance(a, Place) else a for a in arguments]
        return _PASSES[name](sources, source, *known)

    weakref.finalize(work, sources.close)  # files close with the worker, not when Python likes
    return work


def partial_gram(
    sources: ForceSources,
    source: int,
    frames: np.ndarray,
    atoms: np.ndarray,
    groups: np.ndarray,
    device: Any = None,
) -> Gram:
    """Second moments of the forces of some frames; on a GPU if one is given."""
    n_groups = int(groups.max()) + 1
    gram = Gram(n_groups) if device is None else DeviceGram(n_groups, device)
    for block in _forces(sources, source, frames, atoms):
        gram.add(block, groups)
    return gram if isinstance(gram, Gram) else gram.gram()


def mapped_forces(
    sources: ForceSources, source: int, frames: np.ndarray, atoms: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """W f (T, n, 3) float64 of some frames; weights are W (n, N)."""
    n, N = weights.shape
    blocks = []
    for f in _forces(sources, source, frames, atoms):  # [t, i, c]
        x = reduce_groups(f, np.arange(N))  # [i, 3t + c]
        blocks.append((weights @ x).reshape(n, len(f), 3).transpose(1, 0, 2))
    return np.concatenate(blocks)


_PASSES: dict[str, Work] = {"gram": partial_gram, "apply": mapped_forces}


def gram_matrices(
    crew: Crew,
    rows: Rows,
    split: Split,
    atoms: np.ndarray,
    groups: np.ndarray,
    n_atoms: int,
    bar: Progress,
    device: Any = None,
) -> tuple[list[Gram], Gram | None]:
    """Second moments of every fold, and of the frames held out, in one pass.

    Args:
        crew: runs `prepare`.
        rows: the molecule's frames.
        split: part of each.
        atoms: (N,) the molecule's atoms in a trajectory.
        groups: (N,) rigid group of each.
        n_atoms: of a trajectory.
        bar: is told of every frame.
        device: of torch, in place of the CPU.

    Raises:
        DataError: a trajectory is damaged, has no forces, or one that is not finite.
    """
    n_groups = int(groups.max()) + 1
    ordered, part = rows.select(rows.order), split.part[rows.order]
    work = list(pieces(ordered.source, part, n_atoms, n_groups))
    extra = () if device is None else (device,)
    tasks = (
        ("gram", int(ordered.source[p[0]]), ordered.frame[p], atoms, groups, *extra) for p in work
    )
    folds = [Gram(n_groups) for _ in range(split.n_folds)]
    held_out = Gram(n_groups) if split.n_held_out else None
    for piece, gram in zip(work, crew.map(tasks), strict=True):
        k = int(part[piece[0]])
        total = held_out if k == HELD_OUT else folds[k]
        assert total is not None
        total.merge(gram)
        bar.advance(len(piece))
    return folds, held_out


def projected(crew: Crew, cg: CGSet, maps: MapStore, n_atoms: Sequence[int]) -> Iterator[CGBlock]:
    """The set's blocks with forces W f, in the order of its frames.

    Args:
        crew: runs `prepare`.
        cg: the mapped set.
        maps: W (n, N) of every molecule.
        n_atoms: of every molecule's trajectories.

    Raises:
        DataError: see `gram_matrices`; or a position of the set is not finite.
    """
    waiting: deque[CGBlock] = deque()  # handed out and not yet back, in order

    def tasks() -> Iterator[tuple[Any, ...]]:
        current, beads = -1, cg.molecules[0]
        for block in cg.blocks(forces=False):
            if block.molecule != current:
                current, beads = block.molecule, cg.molecules[block.molecule]
            for piece in pieces(block.source, block.source, n_atoms[current]):
                waiting.append(select(block, piece))
                source, frames = int(block.source[piece[0]]), block.frame[piece]
                yield "apply", source, frames, beads.atom_index, maps.places[current]

    for forces in crew.map(tasks()):
        yield dataclasses.replace(waiting.popleft(), F=forces)


def noisy(
    blocks: Iterable[CGBlock],
    cg: CGSet,
    weights: Sequence[np.ndarray],
    recipes: Sequence[Recipe],
    seed: int,
) -> Iterator[CGBlock]:
    """The blocks with the noise of each frame and the force that belongs to it.

    Args:
        blocks: with forces W f.
        cg: the set.
        weights: W (n, N) of every molecule.
        recipes: of every molecule, with noise.
        seed: of the noise.
    """
    current, force_map = -1, None
    for block in blocks:
        assert block.F is not None
        if force_map is None or block.molecule != current:
            current = block.molecule
            recipe, w, m = recipes[current], weights[current], cg.molecules[current].mapping
            assert m is not None
            force_map = ForceMap(
                *(w, np.arange(w.shape[1]), w @ m.T - np.eye(len(w)), "noise"),
                sigma=recipe.sigma,
                temperature=recipe.temperature,
            )
        eps = np.empty_like(block.F)
        for source in np.unique(block.source).tolist():
            some = block.source == source
            eps[some] = frame_noise(seed, source, block.frame[some], eps.shape[1])
        R, F = add_noise(force_map, block.R, block.F, eps)
        yield dataclasses.replace(block, R=R, F=F)


def select(block: CGBlock, which: np.ndarray) -> CGBlock:
    """Some frames of a block."""
    values = {name: getattr(block, name) for name in OF_FRAMES}
    return dataclasses.replace(block, **{k: v[which] for k, v in values.items() if v is not None})


def _forces(
    sources: ForceSources, source: int, frames: np.ndarray, atoms: np.ndarray
) -> Iterator[np.ndarray]:
    trajectory = sources[source]
    for found in read_frames(trajectory, frames, atoms, positions=False, forces=True):
        if found.forces is None:
            raise DataError("the trajectory has no forces", where=str(trajectory.path))
        yield found.forces
