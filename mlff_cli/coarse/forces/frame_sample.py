"""Frames of a molecule drawn from a stream, and the bound on what no model of beads can learn.

A fitted map has made the noise of the frames that it was fitted on small: with 300 weights and 160
frames, to a sixth of what it is on others. The bound of a fitted map is therefore taken from
held-out frames, that of the basic map from all.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlff_cli.coarse.forces.force_passes import select
from mlff_cli.coarse.forces.unlearnable import sample_rows, unlearnable_variance
from mlff_cli.data.beads.cg_npz import CGBlock

NOTHING_HELD_OUT = (
    "no frames were held out: the noise of those that a map was fitted on is smaller than that of "
    "others"
)


class FrameSample:
    """Frames drawn by seed, kept until the last of them has come.

    Args:
        seed: of the drawing.
        rows: (T,) rows of the set, of one molecule; those that the map was not fitted on.
        kind: what these are, in words.
    """

    def __init__(self, seed: int, rows: np.ndarray, kind: str) -> None:
        self._wanted = rows[sample_rows(len(rows), seed)]
        self._kind = kind
        self._blocks: list[CGBlock] = []
        self._n = 0

    def add(self, block: CGBlock) -> None:
        """Keep what was drawn of a block."""
        assert block.rows is not None
        some = np.flatnonzero(np.isin(block.rows, self._wanted))
        if len(some):
            self._blocks.append(select(block, some))
            self._n += len(some)

    @property
    def complete(self) -> bool:
        """Whether all frames that were drawn have come."""
        return self._n == len(self._wanted)

    def clear(self) -> None:
        """Forget the frames."""
        self._blocks = []

    def bound(self) -> dict[str, Any]:
        """Upper bound on the variance of forces that positions do not decide, plain values.

        `bound` is None, and `why` says why, where there are no frames to take it from.
        """
        if not len(self._wanted):
            return {"bound": None, "why": NOTHING_HELD_OUT, "frames": 0}
        R, F, frame, source = (
            np.concatenate([getattr(block, name) for block in self._blocks])
            for name in ("R", "F", "frame", "source")
        )
        found = unlearnable_variance(R, F, rows=frame, source=source)
        told = {name: value for name, value in vars(found).items() if name != "pairs"}
        return {**told, "pairs": len(found.pairs), "frames": len(R), "of": self._kind}
