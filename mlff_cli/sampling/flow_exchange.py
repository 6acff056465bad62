"""A flow between two temperatures as the map of `physics.mapped_exchange`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from mlff_cli.core.errors import UsageError
from mlff_cli.flows.flow import Flow
from mlff_cli.flows.molecule import FlowMolecule

MOST = 4096  # conformations that a flow is given at a time


class FlowMap:
    """A trained flow; fulfils `physics.mapped_exchange.Map`.

    Args:
        flow: from the source's conformations to the target's, in evaluation mode.
        source: K.
        target: K.
        molecule: whose conformations they are.
        forcefield: of the energy that the flow was trained on, as OpenMM takes it.
        where: its file, for messages.

    Attributes:
        source: K.
        target: K.
    """

    def __init__(
        self,
        flow: Flow,
        source: float,
        target: float,
        molecule: FlowMolecule,
        forcefield: Sequence[str],
        where: str,
    ) -> None:
        self.source, self.target = source, target
        self._flow, self._molecule = flow, molecule
        self._forcefield, self._where = tuple(forcefield), where
        tensors = (*flow.parameters(), *flow.buffers())
        floating = [t for t in tensors if t.is_floating_point()]
        kinds = floating or [torch.zeros((), dtype=torch.float64)]
        self._dtype, self._device = kinds[0].dtype, kinds[0].device

    def __call__(self, positions: np.ndarray, *, inverse: bool) -> tuple[np.ndarray, np.ndarray]:
        """See `Map`; what the flow cannot carry is not finite."""
        move = self._flow.inverse if inverse else self._flow
        moved, dets = [], []
        with torch.no_grad():
            for start in range(0, len(positions), MOST):
                x = torch.as_tensor(
                    positions[start : start + MOST], dtype=self._dtype, device=self._device
                )
                y, log_det = move(x)
                moved.append(y.cpu().double().numpy())
                dets.append(log_det.cpu().double().numpy())
        return np.concatenate(moved), np.concatenate(dets)

    def require(self, numbers: np.ndarray, bonds: np.ndarray) -> None:
        """Refuse to sample another molecule than the flow's, or its atoms in another order.

        Args:
            numbers: (N,) atomic numbers of what is sampled.
            bonds: (b, 2) of it.

        Raises:
            UsageError: they differ.
        """
        mine, theirs = (
            {tuple(sorted(pair)) for pair in np.asarray(b).reshape(-1, 2).tolist()}
            for b in (self._molecule.bonds, bonds)
        )
        known, numbers = self._molecule.numbers, np.asarray(numbers)
        if len(known) != len(numbers):
            differ = f"found {len(known)} and {len(numbers)} atoms"
        elif not np.array_equal(known, numbers):
            k = int(np.flatnonzero(known != numbers)[0])
            differ = f"the elements differ at atom {k}, {known[k]} and {numbers[k]}"
        elif mine != theirs:
            differ = f"the bonds {sorted(mine ^ theirs)[:3]} are of one of them only"
        else:
            return
        raise UsageError(
            f"a flow exchanges the molecule that it was trained on, atom by atom: {differ}",
            where=self._where,
            remedy="sample what the flow's data were sampled from, with the same --peptide or PDB",
        )

    def doubt(self, forcefield: Sequence[str]) -> str | None:
        """A warning of another force field than the flow's, which swaps are exact in, or None."""
        if tuple(forcefield) == self._forcefield:
            return None
        return (
            f"{self._where} was trained with --forcefield {','.join(self._forcefield)}, and "
            f"{','.join(forcefield)} is sampled: the ensembles are right, but few swaps may be done"
        )
