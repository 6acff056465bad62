"""Rigid groups of atoms: which distances a simulation constrained, and what they join.

    std_t |r_i - r_j|  of bonded and 1-3 pairs:  0 if constrained, sqrt(kT / k) > 0.02 A if not
    coordinates rounded to h:                    h / sqrt(6) if constrained

Rounding moves each end of a pair by h^2/12 in every direction, so that 0.01 A (XTC) makes a rigid
distance vary by 0.0041 A: more than the threshold for exact coordinates, and still five times less
than the stiffest bond at room temperature. A group too many costs a force map some variance, one
too few makes it wrong: in doubt a pair counts as rigid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mlff_cli.core.errors import DataError

THRESHOLD = 1e-3  # angstrom; constraint solvers and single precision stay below 1e-4
FLEXIBLE = 0.015  # angstrom: below what any bond varies at room temperature
ENOUGH_FRAMES = 20  # for a verdict on one pair; with fewer, on all pairs of a kind together
STEPS = (0.1, 0.01, 0.001)  # angstrom, of rounded coordinates
KINDS = (
    "bonds to hydrogen",
    "bonds in water",
    "other bonds",
    "H-H distances in water",
    "other 1-3 distances",
)
_BLOCK = 2048  # pairs looked at together


@dataclass(frozen=True)
class Kind:
    """What was found of pairs of one kind.

    Attributes:
        name: one of `KINDS`.
        n: pairs.
        n_rigid: those that count as constrained.
        std: median standard deviation of their distances in angstrom; None without coordinates.
    """

    name: str
    n: int
    n_rigid: int
    std: float | None


@dataclass(frozen=True)
class Constraints:
    """Constrained pairs of atoms and how they were found.

    Attributes:
        pairs: (k, 2) int64, each ascending.
        relied_on: a sentence that says what the verdict rests on.
        kinds: what was found, kind by kind; kinds without pairs are left out.
        precision: step of rounded coordinates in angstrom, 0.0 where they are not.
        threshold: in angstrom, below which a distance counted as rigid; None without coordinates.
    """

    pairs: np.ndarray
    relied_on: str
    kinds: tuple[Kind, ...]
    precision: float = 0.0
    threshold: float | None = None


def constraint_groups(n_atoms: int, pairs: np.ndarray) -> np.ndarray:
    """Atoms that constraints connect, in groups; an atom without constraints is a group of its own.

    Args:
        n_atoms: N.
        pairs: (k, 2) constrained pairs of atoms.

    Returns:
        (N,) group of every atom, numbered from 0 in the order of their first atoms.
    """
    i, j = np.asarray(pairs, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(i)), (i, j)), shape=(n_atoms, n_atoms))
    labels = connected_components(graph, directed=False)[1]
    _, first, groups = np.unique(labels, return_index=True, return_inverse=True)
    order = np.empty(len(first), dtype=np.int64)
    order[np.argsort(first)] = np.arange(len(first))
    found: np.ndarray = order[groups]
    return found


def topology_constraints(elements: np.ndarray, bonds: np.ndarray) -> Constraints:
    """The usual constraints of a topology: bonds to hydrogen, and water as a rigid triangle.

    Args:
        elements: (N,) atomic numbers.
        bonds: (m, 2) bonded atoms.
    """
    return _from_topology(*_candidates(elements, bonds), "the topology")


def detect_constraints(
    positions: np.ndarray,
    elements: np.ndarray,
    bonds: np.ndarray,
    *,
    box: np.ndarray | None = None,
    precision: float = 0.0,
    threshold: float = THRESHOLD,
) -> Constraints:
    """Bonded and 1-3 pairs whose distance does not vary over frames.

    Coordinates too coarse to tell, and a single frame, leave it to the topology.

    Args:
        positions: (T, N, 3) in angstrom; some 100 frames, far apart, are enough.
        elements: (N,) atomic numbers.
        bonds: (m, 2) bonded atoms.
        box: (T, 3, 3) edge vectors in rows, angstrom, where molecules may be cut by its faces.
        precision: step of rounded coordinates in angstrom; 0.0 looks for one.
        threshold: standard deviation in angstrom below which a distance is rigid.

    Raises:
        DataError: positions have other atoms than the topology, or there are no frames.
    """
    if positions.shape != (len(positions), len(elements), 3) or not len(positions):
        raise DataError(
            f"constraints are looked for in frames of {len(elements)} atoms, found positions "
            f"{positions.shape}",
            remedy="use the trajectory that was mapped, or --constraints topology",
        )
    n_frames = len(positions)
    pairs, kind = _candidates(elements, bonds)
    step = precision or _rounding(positions, pairs)
    blur = step / np.sqrt(6.0)
    limit = max(threshold, 2.0 * blur)
    rounded = f"coordinates rounded to {step:g} A"
    if n_frames == 1:
        return _from_topology(pairs, kind, "the topology: one frame shows no motion", step)
    if limit > FLEXIBLE:
        why = f"the topology: {rounded} hide what is rigid"
        return _from_topology(pairs, kind, why, step)
    std = _spread(positions, pairs, box)
    rigid = std < limit
    alone = n_frames >= ENOUGH_FRAMES
    if not alone:
        for k in np.unique(kind):
            rigid[kind == k] = np.sqrt(np.mean(std[kind == k] ** 2)) < limit
    how = "each distance" if alone else "all distances of a kind together"
    relied_on = (
        f"bonds and 1-3 pairs of the topology, {how} rigid if it varies by less than {limit:.2g} A "
        f"over {n_frames} frames"
    )
    if limit > threshold:
        relied_on += f" ({rounded}: a rigid one then varies by {blur:.2g} A, not {threshold:g} A)"
    return Constraints(pairs[rigid], relied_on, _kinds(kind, rigid, std), step, limit)


def _candidates(elements: np.ndarray, bonds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bonded and 1-3 pairs (p, 2), ascending, and the kind (p,) of each by its place in `KINDS`."""
    n = len(elements)
    i, j = np.asarray(bonds, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(2 * len(i)), (np.r_[i, j], np.r_[j, i])), shape=(n, n)).tocsr()
    graph.data[:] = 1.0  # a bond that is listed twice is one
    hydrogen = elements == 1
    degree = graph @ np.ones(n)
    oxygen = (elements == 8) & (degree == 2) & (graph @ (hydrogen & (degree == 1)) == 2)
    water = oxygen | (hydrogen & (graph @ oxygen > 0))
    bonded, two_steps = (_upper(matrix) for matrix in (graph, graph @ graph))
    known = bonded[:, 0] * n + bonded[:, 1]
    angles = two_steps[~np.isin(two_steps[:, 0] * n + two_steps[:, 1], known)]
    of_bond = np.where(hydrogen[bonded].any(axis=1), 0, 2)
    of_bond[water[bonded].all(axis=1)] = 1
    of_angle = np.where(water[angles].all(axis=1), 3, 4)
    return np.concatenate([bonded, angles]), np.concatenate([of_bond, of_angle])


def _upper(matrix: coo_array) -> np.ndarray:
    """Places (p, 2) of nonzero elements above the diagonal."""
    entries = matrix.tocoo()
    above = entries.row < entries.col
    return np.stack([entries.row[above], entries.col[above]], axis=1).astype(np.int64)


def _from_topology(
    pairs: np.ndarray, kind: np.ndarray, why: str, precision: float = 0.0
) -> Constraints:
    rigid = np.isin(kind, [0, 1, 3])
    said = f"{why}; bonds to hydrogen and the triangle of water taken as rigid"
    return Constraints(pairs[rigid], said, _kinds(kind, rigid, None), precision)


def _kinds(kind: np.ndarray, rigid: np.ndarray, std: np.ndarray | None) -> tuple[Kind, ...]:
    return tuple(
        Kind(
            *(KINDS[k], int((kind == k).sum()), int(rigid[kind == k].sum())),
            float(np.median(std[kind == k])) if std is not None else None,
        )
        for k in np.unique(kind)
    )


def _vectors(positions: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """r_j - r_i (T, p, 3) float64."""
    ends: np.ndarray = positions[:, pairs[:, 1]].astype(float) - positions[:, pairs[:, 0]]
    return ends


def _spread(positions: np.ndarray, pairs: np.ndarray, box: np.ndarray | None) -> np.ndarray:
    """Standard deviations (p,) of distances over frames, in angstrom."""
    found = np.empty(len(pairs))
    for start in range(0, len(pairs), _BLOCK):
        some = slice(start, start + _BLOCK)
        d = _vectors(positions, pairs[some])  # [T, p, 3]
        if box is not None:  # bonds are short beside a box: the nearest image is the bonded one
            d -= np.rint(d @ np.linalg.inv(box.astype(float))) @ box
        found[some] = np.sqrt((d * d).sum(axis=-1)).std(axis=0, ddof=1)
    return found


def _rounding(positions: np.ndarray, pairs: np.ndarray) -> float:
    """The largest of `STEPS` that differences of coordinates are multiples of, 0.0 for none.

    Differences, because a frame that was shifted as a whole still tells.
    """
    d = np.abs(_vectors(positions[:10], pairs[:_BLOCK])).ravel()
    d = d[d > 0.0]
    for step in STEPS:
        off = np.abs(d / step - np.rint(d / step))  # of exact coordinates, a tenth are below 0.05
        if len(d) >= 30 and (off < 0.05).mean() > 0.9:
            return step
    return 0.0
