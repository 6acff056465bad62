"""Which frames a force map is fitted on and which are held out: contiguous blocks, drawn by seed.

Neighbouring frames of a trajectory are alike. A hold-out of single frames drawn at random would
find a near copy of each of them among the fitted ones, and its residual would be too good. So the
frames, in the order of their trajectories, are cut into blocks of one length, and whole blocks are
held out. The folds of cross-validation are runs of the blocks that are left.

    frames   |0 0 0|1 1 1|. . .|2 2 2|3 3 3|4 4 4|. . .|     . held out,  0-4 folds
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mlff_cli.coarse.forces.force_map import FEWEST
from mlff_cli.core.errors import UsageError

N_BLOCKS = 20  # long blocks: only their ends have neighbours on the other side
N_FOLDS = FEWEST
HELD_OUT = -1


@dataclass(frozen=True)
class Split:
    """Part of every frame.

    Attributes:
        part: (T,) fold from 0 of a frame that is fitted on, `HELD_OUT` of one that is not.
        n_blocks: blocks that the frames were cut into.
        n_folds: folds of the frames that are fitted on.
    """

    part: np.ndarray
    n_blocks: int
    n_folds: int

    @property
    def n_training(self) -> int:
        """Frames that are fitted on."""
        return int((self.part != HELD_OUT).sum())

    @property
    def n_held_out(self) -> int:
        """Frames that are not."""
        return int((self.part == HELD_OUT).sum())


def split_frames(
    order: np.ndarray, holdout: float, seed: int, *, folds: bool = False, where: str | None = None
) -> Split:
    """Cut frames into fitted and held-out blocks.

    Args:
        order: (T,) permutation: frames in the order of their trajectories and of time.
        holdout: share of the frames to hold out, from 0 to below 1.
        seed: of the drawing.
        folds: whether the fitted blocks are split into `N_FOLDS` folds; else all are fold 0.
        where: what the frames are of, for messages.

    Raises:
        UsageError: `holdout` is out of range, or there are too few frames to hold any out or to
            make folds of.
    """
    if not 0.0 <= holdout < 1.0:
        raise UsageError(
            f"--holdout must be 0 or more and below 1, found {holdout:g}",
            remedy="0.2 holds a fifth of the frames out, 0 fits on all of them",
        )
    n = len(order)
    smallest = math.ceil(1.0 / holdout) if holdout else 1
    n_blocks = min(n, max(N_BLOCKS, smallest))
    n_folds = N_FOLDS if folds else 1
    if n_blocks < n_folds + (holdout > 0.0):
        raise UsageError(
            f"{n} {'frame is' if n == 1 else 'frames are'} too few for"
            f"{' a hold-out' if holdout else ''}{' and' if holdout and folds else ''}"
            f"{f' {N_FOLDS} folds' if folds else ''}",
            where=where,
            remedy="use more frames"
            + (", or a value of --l2" if folds else "")
            + (", or --holdout 0" if n >= n_folds else ""),
        )
    n_out = min(max(1, round(holdout * n_blocks)), n_blocks - n_folds) if holdout else 0
    out = np.random.default_rng(seed).choice(n_blocks, n_out, replace=False)
    kept = np.setdiff1d(np.arange(n_blocks), out)
    block_part = np.full(n_blocks, HELD_OUT)
    block_part[kept] = np.arange(len(kept)) * n_folds // len(kept)
    part = np.empty(n, dtype=np.int8)
    part[order] = block_part[np.arange(n) * n_blocks // n]
    return Split(part, n_blocks, n_folds)
