"""Force matching of a prior alone, over a whole training set: what L-BFGS minimises.

    L(p) = 1/(3n) sum_frames sum_i |F_prior,i(R; p) - F_i|^2             n: beads of all frames

in (kcal/mol/angstrom)^2. Frames are taken molecule by molecule in their order, so that the sum is a
pure function of the parameters p.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from mlff_cli.data.beads.bead_frames import BeadFrames
from mlff_cli.potentials.prior import BoundTerms, Prior

TERMS_AT_ONCE = 1 << 17  # terms times frames that graphs of second derivatives are held of


class PriorObjective:
    """The loss of a prior's parameters and its gradient, one process's share of it.

    Args:
        prior: whose parameters it is a function of.
        bound: terms of a molecule of `frames`, by its number.
        frames: the frames.
        index: numbers of the frames that count, of all processes.
        rank: of this process, which takes every `size`-th frame.
        size: number of processes.
    """

    def __init__(
        self,
        prior: Prior,
        bound: Callable[[int], BoundTerms],
        frames: BeadFrames,
        index: np.ndarray,
        *,
        rank: int = 0,
        size: int = 1,
    ) -> None:
        self._prior = prior
        self._bound = bound
        self._frames = frames
        self._index = index[rank::size]
        self._scale = 1.0 / (3.0 * float(frames.n_beads[index].sum()))

    def __call__(self) -> Tensor:
        """This process's share of L, scalar float64; its gradient is added to the parameters'."""
        total = torch.zeros((), dtype=torch.float64)
        for bound, R, F in self._pieces():
            _, forces = self._prior.energy_and_forces(R, bound, differentiable=True)
            loss = self._scale * (forces - F).square().sum()
            if loss.requires_grad:
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach().cpu()
        return total

    def _pieces(self) -> Iterator[tuple[BoundTerms, Tensor, Tensor]]:
        """Terms, positions and forces (t, n, 3) float64 of frames of one molecule at a time."""
        device = next(self._prior.parameters()).device
        for k in np.unique(self._frames.molecule[self._index]).tolist():
            bound = self._bound(k).to(device)
            at_once = max(1, TERMS_AT_ONCE // max(1, bound.n_terms))
            for _, R, F in self._frames.of_molecule(k, self._index, at_once):
                x, f = (torch.from_numpy(a.astype(np.float64)).to(device) for a in (R, F))
                yield bound, x, f
