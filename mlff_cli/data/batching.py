"""Batches: molecules of any fidelity, size and set of labels in one padded dictionary of tensors.

    coord (B, N, 3) A     numbers (B, N) = Z + k * offset, 0 pads     charge (B,) e     mult (B,)
    n_atoms (B,)          fidelity (B,) = k
    <label> (B, ...)      zeros where missing or padded               <label>_mask (B,) bool

Energies are residuals in float64 (`dataset`); everything else has the model's type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mlff_cli.core.fields import FIELDS, INPUTS
from mlff_cli.data.dataset import FidelityDataset

SHOWN_MOLECULES = 8


@dataclass(frozen=True)
class Batch:
    """Tensors of some molecules, and where they came from.

    Attributes:
        tensors: see the module's docstring.
        labels: labels that at least one molecule has.
        fidelity: (B,) fidelity of every molecule.
        index: (B,) its index in the fidelity's data set.
    """

    tensors: dict[str, Tensor]
    labels: frozenset[str]
    fidelity: np.ndarray
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device; from pinned memory without waiting."""
        if device.type == "cpu":
            return self
        moved = {k: v.to(device, non_blocking=True) for k, v in self.tensors.items()}
        return Batch(moved, self.labels, self.fidelity, self.index)


class Collator:
    """Makes batches of molecules named by (fidelity, index).

    Args:
        datasets: at most one per fidelity.
        labels: labels to put into the batch.
        offset: distance between the same element in two fidelities.
        dtype: of everything but energies and integers.
        pin: page-lock the memory, for the transfer to a GPU.
    """

    def __init__(
        self,
        datasets: Sequence[FidelityDataset],
        labels: Sequence[str],
        *,
        offset: int,
        dtype: torch.dtype = torch.float32,
        pin: bool = False,
    ) -> None:
        self.datasets = {d.fidelity: d for d in datasets}
        self.labels = tuple(labels)
        self.offset = offset
        self.dtype = dtype
        self.pin = pin

    def __call__(self, fidelity: np.ndarray, index: np.ndarray) -> Batch:
        """Read, pad and mask the molecules `index` (B,) of the fidelities `fidelity` (B,)."""
        n_atoms = self.sizes(fidelity, index)
        arrays, masks = self._allocate(len(index), int(n_atoms.max()))
        for k, data in self.datasets.items():
            at = np.flatnonzero(fidelity == k)
            at = at[np.argsort(index[at])]  # ascending rows are read at once
            groups, rows = data.locate(index[at])
            for g in np.unique(groups):
                here = groups == g
                self._fill(arrays, masks, at[here], k, data.read(int(g), rows[here]))
        tensors = {name: self._tensor(values) for name, values in arrays.items()}
        tensors["n_atoms"] = self._tensor(n_atoms)
        tensors["fidelity"] = self._tensor(fidelity.astype("int64"))
        tensors |= {f"{name}_mask": self._tensor(mask) for name, mask in masks.items()}
        present = frozenset(name for name, mask in masks.items() if mask.any())
        return Batch(tensors, present, fidelity, index)

    def parts(self, fidelity: np.ndarray, index: np.ndarray, n: int) -> list[Batch]:
        """The same molecules in at most `n` batches of similar sizes, which pads less.

        No molecules make no batch: a process whose share of a step is empty has nothing to do.
        """
        if not len(index):
            return []
        order = np.argsort(self.sizes(fidelity, index), kind="stable")
        runs = np.array_split(order, min(n, len(order)))
        return [self(fidelity[run], index[run]) for run in runs]

    def sizes(self, fidelity: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Atoms (b,) of molecules."""
        n_atoms = np.empty(len(index), dtype="int64")
        for k, data in self.datasets.items():
            n_atoms[fidelity == k] = data.n_atoms[index[fidelity == k]]
        return n_atoms

    def _allocate(self, b: int, n: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Zeros for every field of the batch, and masks that are False."""
        arrays = {}
        for name in (*INPUTS, *self.labels):
            dtype = "int64" if name == "numbers" else FIELDS[name].dtype
            arrays[name] = np.zeros((b, *FIELDS[name].shape(n)), dtype=dtype)
        return arrays, {name: np.zeros(b, dtype=bool) for name in self.labels}

    def _fill(
        self,
        arrays: dict[str, np.ndarray],
        masks: dict[str, np.ndarray],
        at: np.ndarray,
        fidelity: int,
        values: dict[str, np.ndarray],
    ) -> None:
        """Put molecules of one size and fidelity into their rows `at` of the batch."""
        for name, value in values.items():
            if name in masks:
                present = ~np.isnan(value.reshape(len(at), -1)).any(axis=1)
                masks[name][at] = present
                value = np.where(present.reshape(-1, *[1] * (value.ndim - 1)), value, 0)
            elif name == "numbers":
                value = value.astype("int64") + fidelity * self.offset
            if "N" in FIELDS[name].dims:
                arrays[name][at, : value.shape[1]] = value
            else:
                arrays[name][at] = value

    def _tensor(self, values: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(values)
        if tensor.dtype == torch.float32:
            tensor = tensor.to(self.dtype)
        return tensor.pin_memory() if self.pin else tensor

    def name_molecules(self, fidelity: np.ndarray, index: np.ndarray) -> str:
        """The first of some molecules in words, for error messages."""
        pairs = list(zip(fidelity, index, strict=True))
        shown = pairs[:SHOWN_MOLECULES]
        words = ", ".join(self.datasets[int(k)].name_molecule(int(i)) for k, i in shown)
        more = len(pairs) - SHOWN_MOLECULES
        return words + (f" and {more} more" if more > 0 else "")
