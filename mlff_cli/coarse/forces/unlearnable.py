"""An upper bound on the variance of bead forces that no function of the beads can explain.

    s^2 = E|F - E[F|R]|^2 / 3n  <=  E[ |F_i - Q F_j|^2 ] / 6n,      j: the frame nearest to i

Two independent forces at one R differ by 2 s^2 on average; at two R, their mean forces differ too,
so that any pairing by R alone gives a bound, and near pairs a tight one. Q turns frame j onto i:
forces turn with the molecule, and only what is left differs. The second moment of F is a bound as
well; the smaller one is taken.

Nearest is by distances d_k of pairs of beads, each divided by its variance: kT / var(d_k) is the
stiffness of a coordinate, so that this measures how far mean forces may differ. (By RMSD, ten beads
and 2000 frames of a flexible chain gave a bound twice as large.) Frames close in time are no pairs:
they share what the beads do not show. Errors of the bound count a pair that chose each other once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlff_cli.core.errors import DataError

MAX_FRAMES = 2000  # distances of all pairs of frames are held: 32 MB
MAX_FEATURES = 512  # pairs of beads, the stiffest
GAP = 0.01  # of the rows of a trajectory: closer frames are no pair
_FLOOR = 0.02  # angstrom; stiffer than a bond is not more informative
_PROBE = 200  # frames that tell how stiff a pair of beads is
_BLOCK = 4096  # pairs of beads looked at together


@dataclass(frozen=True)
class Unlearnable:
    """A bound and the pairs it comes from; forces in (kcal/mol/angstrom)^2 per component.

    Attributes:
        bound: on s^2, the smaller of `from_pairs` and `total`.
        from_pairs: half the mean square difference of forces of nearest frames; None without pairs.
        error: standard error of `from_pairs`; None without pairs.
        total: mean square force.
        distance: median RMSD of the pairs in angstrom; None without pairs.
        pairs: (k, 2) frames i and j, numbered as given.
    """

    bound: float
    from_pairs: float | None
    error: float | None
    total: float
    distance: float | None
    pairs: np.ndarray


def sample_rows(n_frames: int, seed: int) -> np.ndarray:
    """The frames, at most `MAX_FRAMES`, that the bound is computed from, ascending."""
    if n_frames <= MAX_FRAMES:
        return np.arange(n_frames)
    drawn = np.random.default_rng(seed).choice(n_frames, MAX_FRAMES, replace=False)
    return np.sort(drawn)


def unlearnable_variance(
    positions: np.ndarray,
    forces: np.ndarray,
    *,
    rows: np.ndarray | None = None,
    source: np.ndarray | None = None,
    gap: int | None = None,
    align: bool = True,
) -> Unlearnable:
    """Bound the variance of forces at given positions of the beads of one molecule.

    Args:
        positions: R (T, n, 3) in angstrom; some 1000 frames, see `sample_rows`.
        forces: F (T, n, 3) in kcal/mol/angstrom.
        rows: (T,) rows of the frames in their trajectories; None for frames that are independent.
        source: (T,) trajectory of every frame; None where there is one.
        gap: rows of one trajectory that are closer are no pair; None takes 1 % of its rows.
        align: turn frames onto each other. False where something outside holds the molecule, as
            in an external field.

    Raises:
        DataError: there are more than `MAX_FRAMES` frames, none, or shapes differ.
    """
    n_frames, n_beads = positions.shape[:2]
    if positions.shape != forces.shape or not 1 <= n_frames <= MAX_FRAMES:
        raise DataError(
            f"positions and forces must be alike and of 1 to {MAX_FRAMES} frames, found "
            f"{positions.shape} and {forces.shape}"
        )
    r, f = positions.astype(float), forces.astype(float)
    total = float((f * f).mean())
    nothing = Unlearnable(total, None, None, total, None, np.zeros((0, 2), dtype=np.int64))
    if align:
        r -= r.mean(axis=1, keepdims=True)
        if n_beads == 1:  # one place like any other: no force is to be learnt
            return nothing
    features = _distances(r) if align else _quasi_harmonic(r)
    apart = _apart(features)
    if rows is not None:
        apart[_close_in_time(rows, source, gap)] = np.inf
    np.fill_diagonal(apart, np.inf)
    j = apart.argmin(axis=1)
    i = np.flatnonzero(np.isfinite(apart[np.arange(n_frames), j]))
    if not i.size:
        return nothing
    j = j[i]
    q = _rotations(r[i], r[j]) if align else np.eye(3)
    half = 0.5 * ((f[i] - f[j] @ q) ** 2).mean(axis=(1, 2))  # (k,)
    rmsd = np.sqrt(((r[i] - r[j] @ q) ** 2).sum(axis=2).mean(axis=1))
    found = float(half.mean())
    distinct = len(np.unique(np.sort(np.stack([i, j]), axis=0), axis=1).T)
    return Unlearnable(
        bound=min(found, total),
        from_pairs=found,
        error=float(half.std() / np.sqrt(distinct)),
        total=total,
        distance=float(np.median(rmsd)),
        pairs=np.stack([i, j], axis=1),
    )


def _distances(r: np.ndarray) -> np.ndarray:
    """Distances of the stiffest pairs of beads over their variances (T, m)."""
    a, b = np.triu_indices(r.shape[1], 1)
    probe = r[:: max(1, len(r) // _PROBE)]
    std = np.concatenate(
        [
            np.linalg.norm(probe[:, a[k : k + _BLOCK]] - probe[:, b[k : k + _BLOCK]], axis=-1).std(
                axis=0
            )
            for k in range(0, len(a), _BLOCK)
        ]
    )
    stiff = np.argsort(std, kind="stable")[:MAX_FEATURES]
    d: np.ndarray = np.linalg.norm(r[:, a[stiff]] - r[:, b[stiff]], axis=-1)
    return d / (std[stiff] ** 2 + _FLOOR**2)


def _quasi_harmonic(r: np.ndarray) -> np.ndarray:
    """cov(R)^-1 R (T, 3n): the mean force over kT where R is Gaussian."""
    x = r.reshape(len(r), -1) - r.reshape(len(r), -1).mean(axis=0)
    covariance = x.T @ x / len(x) + _FLOOR**2 * np.eye(x.shape[1])
    solved: np.ndarray = np.linalg.solve(covariance, x.T).T
    return solved


def _apart(x: np.ndarray) -> np.ndarray:
    """Squared distances (T, T) between rows of x (T, m)."""
    x = x - x.mean(axis=0)
    square = (x * x).sum(axis=1)
    found: np.ndarray = square[:, None] + square - 2.0 * (x @ x.T)
    return found


def _close_in_time(rows: np.ndarray, source: np.ndarray | None, gap: int | None) -> np.ndarray:
    """(T, T) bool: frames of one trajectory with fewer than `gap` rows between them."""
    source = np.zeros(len(rows), dtype=np.int64) if source is None else source
    limit = np.full(len(rows), gap or 0)
    if gap is None:
        for s in np.unique(source):
            limit[source == s] = np.ceil(GAP * (np.ptp(rows[source == s]) + 1))
    near = np.abs(rows[:, None] - rows) < limit[:, None]
    found: np.ndarray = near & (source[:, None] == source)
    return found


def _rotations(onto: np.ndarray, what: np.ndarray) -> np.ndarray:
    """Q (T, 3, 3), proper, for which what @ Q is closest to onto (T, n, 3), both centred.

    Kabsch, Acta Cryst. A 32, 922 (1976).
    """
    u, _, vt = np.linalg.svd(np.einsum("tbi,tbj->tij", what, onto))
    u[:, :, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]
    turned: np.ndarray = u @ vt
    return turned
