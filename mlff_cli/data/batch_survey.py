"""What the batches of an epoch look like, known from the sizes of molecules alone.

padding = 1 - sum of atoms / sum over parts of B N,     N: atoms of the part's largest molecule
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlff_cli.data.fidelities import Fidelities

MOST = 2_000  # batches that are looked at, evenly over the first epoch


@dataclass(frozen=True)
class BatchSurvey:
    """The batches of the first epoch.

    Attributes:
        molecules: (n,) of each batch.
        atoms: (n,) of each batch, without padding.
        padded: (n,) atoms with padding.
        drawn: (K,) molecules of each fidelity.
        heavy: steps of the batches with the most padded atoms and with the most pairs in one part.
    """

    molecules: np.ndarray
    atoms: np.ndarray
    padded: np.ndarray
    drawn: np.ndarray
    heavy: list[int]

    @property
    def padding(self) -> float:
        """Share of padding."""
        return 1.0 - float(self.atoms.sum() / self.padded.sum())


def survey(fidelities: Fidelities, split: int = 1) -> BatchSurvey:
    """Look at the batches of the first epoch.

    Args:
        fidelities: the data of a training.
        split: parts that a batch is computed in.
    """
    length = fidelities.sampler.epoch_length
    steps = np.unique(np.linspace(0, length - 1, min(MOST, length)).astype("int64"))
    table = np.empty((len(steps), 3), dtype="int64")
    largest = np.empty((len(steps), 2))  # padded atoms and pairs of the largest part
    drawn = np.zeros(len(fidelities.train), dtype="int64")
    for row, step in enumerate(steps):
        fidelity, index = fidelities.sampler.batch(int(step))
        sizes = np.empty(len(index), dtype="int64")
        for k, data in enumerate(fidelities.train):
            here = fidelity == data.fidelity
            sizes[here] = data.n_atoms[index[here]]
            drawn[k] += np.count_nonzero(here)
        parts = np.array_split(np.sort(sizes), min(split, len(sizes)))  # as the collator does
        padded = [len(p) * int(p[-1]) for p in parts]
        table[row] = len(sizes), sizes.sum(), sum(padded)
        largest[row] = max(padded), max(n * int(p[-1]) for n, p in zip(padded, parts, strict=True))
    heavy = sorted({int(steps[i]) for i in largest.argmax(axis=0)})
    molecules, atoms, padded_atoms = table.T
    return BatchSurvey(molecules, atoms, padded_atoms, drawn, heavy)
