"""The batches of a training, as one of several processes computes them."""

from __future__ import annotations

import numpy as np
import torch

from mlff_cli.data.batching import Batch, Collator
from mlff_cli.data.fidelities import Fidelities
from mlff_cli.data.settings import DataSection

SHOWN = 3  # of the largest molecules


class Feed:
    """Reads, pads and divides batches.

    Args:
        fidelities: opened, split and planned.
        data: `data` of the configuration.
        offset: distance between the same element in two fidelities.
        dtype: of everything but energies and integers.
        pin: page-lock memory, for the transfer to a GPU.
        rank: of this process.
        size: number of processes.

    Attributes:
        epoch_length: training batches per epoch.
        n_validation: validation batches, of all processes.
    """

    def __init__(
        self,
        fidelities: Fidelities,
        data: DataSection,
        *,
        offset: int,
        dtype: torch.dtype,
        pin: bool = False,
        rank: int = 0,
        size: int = 1,
    ) -> None:
        self._fidelities = fidelities
        self._split = data.samplers.train.kwargs.split
        self._rank, self._size = rank, size
        self._train, self._validation = (
            Collator(sets, data.y, offset=offset, dtype=dtype, pin=pin and loader.pin_memory)
            for sets, loader in (
                (fidelities.train, data.loaders.train),
                (fidelities.validation, data.loaders.val),
            )
        )
        self.epoch_length = fidelities.sampler.epoch_length
        self.n_validation = len(fidelities.validation_picks)

    def training_parts(self, step: int) -> list[Batch]:
        """This process's share of the batch of a step; none where there are too few molecules."""
        fidelity, index = self._fidelities.training_share(step, self._rank, self._size)
        return self._train.parts(fidelity, index, -(-self._split // self._size))

    def validation_batch(self, i: int) -> Batch:
        """A validation batch."""
        return self._validation(*self._fidelities.validation_picks[i])

    def name_molecules(self, step: int) -> str:
        """The molecules of the batch of a step in words, those of all processes."""
        return self._train.name_molecules(*self._fidelities.sampler.batch(step))

    def name_largest(self, step: int) -> str:
        """The largest molecules of this process's share in words."""
        fidelity, index = self._fidelities.training_share(step, self._rank, self._size)
        n_atoms = self._train.sizes(fidelity, index)
        chosen = np.argsort(-n_atoms, kind="stable")[:SHOWN]
        return ", ".join(
            f"{self._train.name_molecules(fidelity[[i]], index[[i]])} ({n_atoms[i]} atoms)"
            for i in chosen
        )
