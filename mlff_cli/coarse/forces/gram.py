"""The Gram matrix of atomic forces summed over rigid groups: all that a force map is fitted on.

    G = (1/3T) sum_t,c y_tc y_tc^T,    y_tc = C^T x_tc        x (N,), y (g,): component c of frame t

C (N, g) is 0/1 with one column per rigid group. G has the mean square of a group's force per
component on its diagonal, (kcal/mol/angstrom)^2. Frames are added in any order and in pieces of any
size, sums of different processes are merged: no pass over the forces needs more than one piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from scipy.linalg.blas import dsyrk
from scipy.linalg.lapack import dtpttr, dtrttp

from mlff_cli.core.errors import DataError

BLOCK_BYTES = 2 << 20  # of float64 forces turned over at a time; larger ones leave the cache
BLOCK_FRAMES = 96  # at least: G is read and written once per block


def reduce_groups(forces: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Sums of forces over groups, y (g, 3T) float64: column 3t + c is component c of frame t.

    Args:
        forces: (T, N, 3) in kcal/mol/angstrom, of any precision.
        groups: (N,) group of every atom, 0 to g - 1.

    Raises:
        DataError: the atoms of forces and groups are not the same, or a force is not finite.
    """
    n_frames, n_atoms = forces.shape[:2]
    if forces.shape != (n_frames, len(groups), 3):
        raise DataError(
            f"forces must be (frames, {len(groups)}, 3) as the mapping has {len(groups)} atoms, "
            f"found {forces.shape}",
            remedy="use the trajectory that was mapped",
        )
    x = np.array(forces.transpose(0, 2, 1), dtype=float, order="C").reshape(-1, n_atoms)
    if not np.array_equal(groups, np.arange(n_atoms)):
        x = group_sums(x, groups)
    if not np.isfinite(x.sum()):  # sums of finite forces do not overflow, so something is not
        t, i, _ = np.argwhere(~np.isfinite(forces))[0]
        raise DataError(
            f"forces must be finite, found {forces[t, i]} on atom {i} in frame {t} of the block",
            remedy="leave the frame out, or write the trajectory again",
        )
    return x.T


def group_sums(x: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """X C (rows, g) of X (rows, N): all first atoms of groups, then all second ones, and so on.

    For groups of a few atoms this is faster than a sparse product.

    Args:
        x: (rows, N), any numbers of atoms.
        groups: (N,) group of every atom, 0 to g - 1.
    """
    sizes = np.bincount(groups)
    atoms = np.argsort(groups, kind="stable")
    first = np.cumsum(sizes) - sizes
    y: np.ndarray = np.take(x, atoms[first], axis=1)
    for k in range(1, int(sizes.max())):
        some = np.flatnonzero(sizes > k)
        member = np.take(x, atoms[first[some] + k], axis=1)
        if len(some) == len(sizes):
            y += member
        else:
            y[:, some] += member
    return y


def _blocks(forces: np.ndarray) -> Iterator[np.ndarray]:
    step = max(BLOCK_FRAMES, BLOCK_BYTES // (24 * max(1, forces.shape[1])))
    for start in range(0, len(forces), step):
        yield forces[start : start + step]


class Gram:
    """Sum of y y^T over frames and components; float64, g^2 numbers whatever the frames.

    Args:
        n_groups: g.

    Attributes:
        n_groups: g.
        n_frames: T, frames added so far.
    """

    def __init__(self, n_groups: int) -> None:
        self.n_groups = n_groups
        self.n_frames = 0
        self._sum = np.zeros((n_groups, n_groups), order="F")  # the upper triangle

    def add(self, forces: np.ndarray, groups: np.ndarray) -> Gram:
        """Add frames.

        Args:
            forces: (T, N, 3) in kcal/mol/angstrom.
            groups: (N,) group of every atom.

        Returns:
            This object.

        Raises:
            DataError: the atoms of forces and groups are not the same, or a force is not finite.
        """
        for block in _blocks(forces):
            y = reduce_groups(block, groups)
            self._sum = dsyrk(1.0, y, beta=1.0, c=self._sum, overwrite_c=1)
            self.n_frames += len(block)
        return self

    def add_product(self, product: np.ndarray, n_frames: int) -> Gram:
        """Add sum_t,c y y^T (g, g) of frames, where another device has multiplied."""
        self._sum += np.triu(product)
        self.n_frames += n_frames
        return self

    def merge(self, other: Gram) -> Gram:
        """Add the frames of another one; this object is returned."""
        self._sum += other._sum
        self.n_frames += other.n_frames
        return self

    @classmethod
    def total(cls, parts: Iterable[Gram], n_groups: int) -> Gram:
        """A new one of the frames of all parts."""
        whole = cls(n_groups)
        for part in parts:
            whole.merge(part)
        return whole

    def __getstate__(self) -> dict[str, Any]:
        """Half the numbers, for a process to hand to another."""
        return {**vars(self), "_sum": dtrttp(self._sum, uplo="U")[0]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        packed = state.pop("_sum")
        vars(self).update(state, _sum=dtpttr(state["n_groups"], packed, uplo="U")[0])

    @property
    def matrix(self) -> np.ndarray:
        """G (g, g) in (kcal/mol/angstrom)^2, symmetric.

        Raises:
            DataError: no frame has been added.
        """
        if not self.n_frames:
            raise DataError(
                "a force map needs frames with forces, found none",
                remedy="use a trajectory with frames, or a smaller --holdout",
            )
        full: np.ndarray = self._sum + self._sum.T  # below the diagonal there are zeros
        full[np.diag_indices(self.n_groups)] *= 0.5
        full /= 3.0 * self.n_frames
        return full
