"""A batch of bead frames: padded arrays, whose real beads a model takes out.

    coord (B, N, 3) angstrom, types (B, N), forces (B, N, 3) kcal/mol/angstrom, energy (B,) kcal/mol
    n_atoms (B,) beads of a frame, molecule (B,), index (B,) number of the frame
    forces_mask, energy_mask (B,) which frames have the label

Nothing is computed of the padding: it is there because losses, metrics and memory estimates count
samples along the first dimension. `real_beads` says where the beads are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mlff_cli.data.beads.bead_frames import PaddedFrames

FLOATS = ("coord", "forces")


@dataclass(frozen=True, eq=False)
class BeadBatch:
    """Tensors of some frames.

    Attributes:
        tensors: by name, as the table above has them, and what a family adds.
        labels: labels that at least one frame has.
    """

    tensors: dict[str, Tensor]
    labels: frozenset[str]

    def __len__(self) -> int:
        return len(self.tensors["n_atoms"])

    def to(self, device: torch.device) -> BeadBatch:
        """The same on a device."""
        moved = {k: t.to(device, non_blocking=True) for k, t in self.tensors.items()}
        return BeadBatch(moved, self.labels)

    def joined(self, more: dict[str, Tensor]) -> BeadBatch:
        """The same with further tensors (B, ...)."""
        return BeadBatch({**self.tensors, **more}, self.labels)


def collate(
    frames: PaddedFrames, energy: np.ndarray, dtype: torch.dtype, *, pin: bool = False
) -> BeadBatch:
    """A batch of padded frames.

    Args:
        frames: one or more.
        energy: (B,) kcal/mol, NaN where there is none.
        dtype: of positions and forces.
        pin: page-lock it, for the transfer to a GPU.
    """
    known = np.isfinite(energy)
    tensors = {
        "coord": torch.from_numpy(frames.R),
        "types": torch.from_numpy(frames.types),
        "forces": torch.from_numpy(frames.F),
        "energy": torch.from_numpy(np.where(known, energy, 0.0)),
        "n_atoms": torch.from_numpy(frames.n_beads),
        "molecule": torch.from_numpy(frames.molecule),
        "index": torch.from_numpy(frames.index.astype(np.int64)),
        "forces_mask": torch.ones(len(frames.index), dtype=torch.bool),
        "energy_mask": torch.from_numpy(known),
    }
    tensors |= {name: tensors[name].to(dtype) for name in FLOATS}
    if pin:
        tensors = {name: tensor.pin_memory() for name, tensor in tensors.items()}
    return BeadBatch(tensors, frozenset({"forces", *(["energy"] if known.any() else [])}))


def real_beads(n_atoms: Tensor, width: int) -> Tensor:
    """(B, width) bool: which places of padded frames hold a bead.

    Args:
        n_atoms: (B,) beads of every frame.
        width: N.
    """
    return torch.arange(width, device=n_atoms.device) < n_atoms[:, None]
