"""Delta learning in advance: the prior's forces on training frames, computed once.

    |F_ml + F_prior - F|^2 = |F_ml - (F - F_prior)|^2

While the prior rests, its forces on a frame never change. They are computed when they are first
asked for and kept beside the frames, where these lie in memory; where they do not, each batch
computes its own. Where the prior's parameters were changed meanwhile, as by pre-training or by a
checkpoint, all is computed anew.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import torch

from mlff_cli.data.beads.bead_frames import BeadFrames
from mlff_cli.potentials.prior import BoundTerms, Prior
from mlff_cli.potentials.prior_delta import prior_forces

FEW_TERMS = 1500  # of a molecule: all of them in many frames at once beat a search for near ones
TERMS_AT_ONCE = 1 << 18  # terms times frames that gradients are held of, some 200 MB


class PriorStore:
    """Energies and forces of a resting prior on training frames.

    Args:
        prior: the prior; it is copied to the CPU when values are computed.
        bound: terms of a molecule of `frames`, by its number, on the CPU.
        frames: the frames.
        keep: compute all frames at the first call and keep them, where they lie in memory.
    """

    def __init__(
        self,
        prior: Prior,
        bound: Callable[[int], BoundTerms],
        frames: BeadFrames,
        *,
        keep: bool = True,
    ) -> None:
        self._keep = keep and frames.in_memory
        self._prior = prior
        self._copy = Prior(prior.file)
        self._bound = bound
        self._frames = frames
        self._lock = threading.Lock()  # batches are made by several threads
        self._made_of: tuple[int, ...] | None = None
        self._energy = np.zeros(0)
        self._first = np.zeros(0, dtype=np.int64)
        self._F = np.zeros((0, 3), dtype=np.float32)

    def __call__(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Energies (B,) float64 in kcal/mol and forces (B, N, 3) float32 of frames by number.

        N: beads of the largest; what stands behind a frame's beads is zero.
        """
        with self._lock:
            self._refresh()
            n = self._frames.n_beads_of(self._frames.molecule[index])
            places = np.arange(int(n.max(initial=0)))
            real = places < n[:, None]
            F = np.zeros((*real.shape, 3), dtype=np.float32)
            if self._keep:
                F[real] = self._F[(self._first[index][:, None] + places)[real]]
                return self._energy[index], F
            energy = np.zeros(len(index))
            for k in np.unique(self._frames.molecule[index]).tolist():
                here = np.flatnonzero(self._frames.molecule[index] == k)
                R = self._frames.padded(index[here]).R
                energy[here], F[here, : R.shape[1]] = self._of(k, R)
            return energy, F

    def _refresh(self) -> None:
        """Follow the prior's parameters, which tensors count the changes of."""
        now = tuple(p._version for p in self._prior.parameters())
        if now == self._made_of:
            return
        self._copy.load_state_dict({k: v.cpu() for k, v in self._prior.state_dict().items()})
        if self._keep:
            self._compute_all()
        self._made_of = now

    def _compute_all(self) -> None:
        frames = self._frames
        n = frames.n_beads
        self._first = np.concatenate([[0], np.cumsum(n)])[:-1]
        self._energy = np.zeros(len(frames))
        self._F = np.zeros((int(n.sum()), 3), dtype=np.float32)
        every = np.arange(len(frames))
        for k in range(len(frames.molecules)):
            for index, R, _ in frames.of_molecule(k, every):
                energy, F = self._of(k, R)
                self._energy[index] = energy
                self._F[self._first[index][:, None] + np.arange(R.shape[1])] = F

    def _of(self, k: int, R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Energy (t,) and forces (t, n, 3) of frames (t, n, 3) of molecule k."""
        bound = self._bound(k)
        if bound.n_terms > FEW_TERMS:
            return prior_forces(self._copy, bound, R)
        step = max(1, TERMS_AT_ONCE // max(1, bound.n_terms))
        parts = [
            self._copy.energy_and_forces(torch.from_numpy(R[i : i + step].astype(float)), bound)
            for i in range(0, len(R), step)
        ]
        energy, forces = (torch.cat(values).numpy() for values in zip(*parts, strict=True))
        return energy, forces
