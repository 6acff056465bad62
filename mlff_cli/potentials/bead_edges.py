"""Neighbours of beads: all ordered pairs within a cutoff inside each molecule of a ragged batch.

TorchScript can compile these functions.
"""

from __future__ import annotations

import torch
from torch import Tensor

COINCIDENT = 1e-4  # angstrom; nearer beads have no direction, and an edge would have no gradient


def pairs_of(molecule: Tensor) -> Tensor:
    """All ordered pairs of beads of the same molecule; they can be kept while positions change.

    Args:
        molecule: (N,) int64 numbers from 0; beads of one molecule stand together, below 0 for a
            bead that is not there.

    Returns:
        (2, P) int64, sorted by the first bead, then the second.
    """
    n = molecule.shape[0]
    # where each run of equal numbers starts, and how long it is
    _, run, sizes = torch.unique_consecutive(molecule, return_inverse=True, return_counts=True)
    starts = sizes.cumsum(0) - sizes
    count = torch.where(molecule < 0, 0, sizes[run])  # [i] partners, itself among them
    first = torch.repeat_interleave(torch.arange(n, device=molecule.device), count)
    begin = count.cumsum(0) - count  # [i] its first pair
    place = torch.arange(first.shape[0], device=molecule.device) - begin[first]
    second = starts[run[first]] + place
    return torch.stack([first, second])[:, first != second]


def edges_within(
    positions: Tensor, pairs: Tensor, cutoff: float, coincident: float = COINCIDENT
) -> Tensor:
    """The pairs of beads that are nearer than the cutoff.

    Args:
        positions: (N, 3) angstrom; what is not finite has no neighbours.
        pairs: (2, P) int64, as `pairs_of` gives them.
        cutoff: angstrom.
        coincident: angstrom; nearer pairs are left out.

    Returns:
        (2, E) int64, in the order of `pairs`.
    """
    x = positions.detach()
    d2 = (x[pairs[1]] - x[pairs[0]]).square().sum(-1)  # [p]
    near = (d2 < cutoff * cutoff) & (d2 > coincident * coincident)
    return pairs[:, near]


def edges_of(positions: Tensor, molecule: Tensor, cutoff: float) -> Tensor:
    """Edges (2, E) of beads (N, 3) of molecules (N,): see `pairs_of` and `edges_within`."""
    return edges_within(positions, pairs_of(molecule), cutoff)
