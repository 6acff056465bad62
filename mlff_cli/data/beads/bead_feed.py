"""The batches of a training on bead frames, as one of several processes computes them.

A batch is a function of the seed and the step (`data.sampling`): every frame once per pass, in
random order. Frames of all molecules are mixed; each process takes a share of similar work, and
computes it in parts if it is told to.
"""

from __future__ import annotations

import numpy as np
import torch

from mlff_cli.data.beads.bead_batches import BeadBatch, collate
from mlff_cli.data.beads.bead_frames import BeadFrames
from mlff_cli.data.beads.bead_split import FrameSplit
from mlff_cli.data.sampling import MixedSampler, SamplerOptions, every_molecule_once
from mlff_cli.data.sharding import share

SHOWN = 3  # frames in a message
ON_DISK = 64  # frames that are drawn together where they are read from disk
VALIDATED = 2048  # beads of a validation batch, or as many as a training batch has


class BeadFeed:
    """Draws, reads and divides batches.

    Args:
        frames: of all files.
        split: which are trained on.
        energy: (T,) labels in kcal/mol, NaN where there is none.
        batch_size: frames per step, of all processes together.
        seed: of the draws.
        dtype: of positions and forces.
        pin: page-lock memory, for the transfer to a GPU.
        parts: that a batch is computed in, of all processes.
        rank: of this process.
        size: number of processes.

    Attributes:
        batch_size: frames per step; fewer than asked for where there are not so many.
        epoch_length: training batches per epoch.
        n_validation: validation batches, of all processes.
    """

    def __init__(
        self,
        frames: BeadFrames,
        split: FrameSplit,
        energy: np.ndarray,
        *,
        batch_size: int,
        seed: int,
        dtype: torch.dtype,
        pin: bool = False,
        parts: int = 1,
        rank: int = 0,
        size: int = 1,
    ) -> None:
        self._frames = frames
        self._energy = energy
        self._dtype, self._pin = dtype, pin
        self._parts, self._rank, self._size = parts, rank, size
        n_beads = frames.n_beads
        self._n_beads = n_beads
        self.batch_size = min(batch_size, len(split.train))
        self.sampler = MixedSampler(
            [split.train],
            [n_beads[split.train]],
            None,
            SamplerOptions(self.batch_size, block=1 if frames.in_memory else ON_DISK),
            seed,
        )
        self.epoch_length = self.sampler.epoch_length
        largest = int(n_beads.max())
        self._picks = every_molecule_once(
            [split.validation],
            [n_beads[split.validation]],
            max(VALIDATED, largest * -(-self.batch_size // size)),
            "atoms",
        )
        self.n_validation = len(self._picks)

    def relabel(self, energy: np.ndarray) -> None:
        """Put other labels (T,) in the place of the energies."""
        self._energy = energy

    def training_parts(self, step: int) -> list[BeadBatch]:
        """This process's share of the batch of a step; none where there are too few frames."""
        index = self._share(step)
        if not len(index):
            return []
        order = index[np.lexsort((index, self._n_beads[index]))]  # parts of alike sizes
        parts = min(len(index), -(-self._parts // self._size))
        return [self._batch(part) for part in np.array_split(order, parts)]

    def validation_batch(self, i: int) -> BeadBatch:
        """A validation batch."""
        return self._batch(self._picks[i][1])

    def name_frames(self, step: int) -> str:
        """The frames of the batch of a step in words, those of all processes."""
        index = self.sampler.batch(step)[1]
        shown = ", ".join(self._frames.name(i) for i in index[:SHOWN].tolist())
        more = len(index) - SHOWN
        return f"{shown} and {more} more" if more > 0 else shown

    def name_largest(self, step: int) -> str:
        """The largest frames of this process's share in words."""
        index = self._share(step)
        chosen = index[np.argsort(-self._n_beads[index], kind="stable")[:SHOWN]]
        return ", ".join(
            f"{self._frames.name(i)} of {self._n_beads[i]} beads" for i in chosen.tolist()
        )

    def _share(self, step: int) -> np.ndarray:
        pick = self.sampler.batch(step)
        return share(pick, self._n_beads[pick[1]], self._rank, self._size)[1]

    def _batch(self, index: np.ndarray) -> BeadBatch:
        padded = self._frames.padded(index)
        return collate(padded, self._energy[index], self._dtype, pin=self._pin)
