"""Batches of a coarse-grained training, with what the resting prior gives and centred energies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mlff_cli.core.errors import ConfigError
from mlff_cli.data.beads.bead_batches import BeadBatch
from mlff_cli.data.beads.bead_feed import BeadFeed
from mlff_cli.data.beads.bead_frames import BeadFrames
from mlff_cli.data.beads.bead_split import FrameSplit
from mlff_cli.families.base import Inputs
from mlff_cli.families.coarse_grained_model import PRIOR_ENERGY, PRIOR_FORCES
from mlff_cli.families.coarse_grained_prior import BoundMolecules
from mlff_cli.families.coarse_grained_settings import CoarseGrainedSettings
from mlff_cli.potentials.bead_model import BeadModel
from mlff_cli.potentials.prior_store import PriorStore


@dataclass(frozen=True)
class TrainingBatches:
    """Batches, with what the resting prior gives in them.

    Attributes:
        feed: draws them.
        store: what the prior gives; None where it is trained or there is none.
        bound: terms of molecules, where there is a prior.
    """

    feed: BeadFeed
    store: PriorStore | None
    bound: BoundMolecules | None
    dtype: torch.dtype

    @classmethod
    def of(
        cls,
        settings: CoarseGrainedSettings,
        inputs: Inputs,
        frames: BeadFrames,
        split: FrameSplit,
        model: BeadModel,
        first: PriorStore | None,
    ) -> TrainingBatches:
        """Batches of all frames, energies compared up to a constant of each molecule."""
        world, training = inputs.world, settings.training
        bound = store = None
        if model.prior is not None:
            bound = BoundMolecules(model.prior, frames)
            if not settings.model.trains_prior:
                store = PriorStore(model.prior, bound, frames)
        energy = np.full(len(frames), np.nan)
        if training.gamma_U:
            energy = centred_energies(frames, split.train, first)
        feed = BeadFeed(
            frames,
            split,
            energy,
            batch_size=training.batch_per_device * world.size,
            seed=settings.seed,
            dtype=inputs.dtype,
            pin=inputs.device.type == "cuda",
            parts=training.split,
            rank=world.rank,
            size=world.size,
        )
        return cls(feed, store, bound, inputs.dtype)

    def centre(self, frames: BeadFrames, train: np.ndarray) -> None:
        """Centre the energies anew, where a pre-training moved the prior that now rests."""
        self.feed.relabel(centred_energies(frames, train, self.store))

    def training(self, step: int) -> list[BeadBatch]:
        """This process's share of the batch of a step."""
        return [self._completed(part) for part in self.feed.training_parts(step)]

    def validation(self, i: int) -> BeadBatch:
        """A validation batch."""
        return self._completed(self.feed.validation_batch(i))

    def _completed(self, batch: BeadBatch) -> BeadBatch:
        if self.store is None:
            return batch
        energy, forces = self.store(batch.tensors["index"].numpy())
        return batch.joined(
            {
                PRIOR_ENERGY: torch.from_numpy(energy),
                PRIOR_FORCES: torch.from_numpy(forces).to(self.dtype),
            }
        )


def centred_energies(frames: BeadFrames, train: np.ndarray, prior: PriorStore | None) -> np.ndarray:
    """Potential energies U (T,) as labels: a model knows no constant of a molecule's energy.

        U' = U - <U>_k + <U_prior>_k      averages over the training frames of molecule k

    Args:
        frames: with energies of some.
        train: numbers of the frames to train on.
        prior: what the prior gives.

    Raises:
        ConfigError: no frame has an energy.
    """
    if not np.isfinite(frames.energy[train]).any():
        raise ConfigError(
            f"training.gamma_U needs energies U in the set, none of {len(train)} training frames "
            "has one",
            remedy="set training.gamma_U=0 to match forces alone",
        )
    label = frames.energy.copy()
    for k in range(len(frames.molecules)):
        own = train[(frames.molecule[train] == k) & np.isfinite(frames.energy[train])]
        here = frames.molecule == k
        if not len(own):
            label[here] = np.nan
            continue
        label[here] -= frames.energy[own].mean()
        if prior is not None:
            label[here] += float(
                np.mean(
                    np.concatenate(
                        [prior(part)[0] for part in np.array_split(own, -(-len(own) // 1024))]
                    )
                )
            )
    return label
