"""Frames of a molecule drawn from a stream, and the bound on what no model of beads can learn."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlff_cli.coarse.forces.force_passes import select
from mlff_cli.coarse.forces.unlearnable import sample_rows, unlearnable_variance
from mlff_cli.data.beads.cg_npz import CGBlock


class FrameSample:
    """Frames drawn by seed, kept until the last of them has come.

    Args:
        seed: of the drawing.
        rows: (T,) rows of the set, of one molecule.
    """

    def __init__(self, seed: int, rows: np.ndarray) -> None:
        self._wanted = rows[sample_rows(len(rows), seed)]
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
        """Upper bound on the variance of forces that positions do not decide, plain values."""
        R, F, frame, source = (
            np.concatenate([getattr(block, name) for block in self._blocks])
            for name in ("R", "F", "frame", "source")
        )
        found = unlearnable_variance(R, F, rows=frame, source=source)
        told = {name: value for name, value in vars(found).items() if name != "pairs"}
        return {**told, "pairs": len(found.pairs), "frames": len(R)}
