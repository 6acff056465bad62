"""The coarse-grained model of a configuration, and what it predicts of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mlff_cli.core.errors import ConfigError
from mlff_cli.data.beads.bead_batches import real_beads
from mlff_cli.data.beads.bead_frames import BeadFrames
from mlff_cli.data.beads.prior_file import PriorFile
from mlff_cli.families.coarse_grained_settings import BeadModelSection
from mlff_cli.potentials.allegro import Allegro, AllegroSpec
from mlff_cli.potentials.bead_edges import edges_of
from mlff_cli.potentials.bead_model import BeadModel
from mlff_cli.potentials.prior import BoundTerms, Prior
from mlff_cli.training.task import Batch

PRIOR_FORCES, PRIOR_ENERGY = "prior_forces", "prior_energy"
LOOKED_AT = 512  # frames that statistics are taken of
# angstrom; forces are mostly noise, and a larger scale makes deep holes where no frame is
ENERGY_PER_FORCE = 0.1
FEWEST_NEIGHBORS = 1.0  # a sum over neighbours is not normalised by less


@dataclass(frozen=True)
class Surroundings:
    """What Allegro is scaled by.

    Attributes:
        neighbors: of a bead within the cutoff, on average; 0: nobody has any.
        force: root mean square of a component of what it is to learn, kcal/mol/angstrom.
    """

    neighbors: float
    force: float

    @property
    def energy(self) -> float:
        """Scale of Allegro's energies, kcal/mol."""
        return ENERGY_PER_FORCE * self.force


def surroundings(
    frames: BeadFrames,
    index: np.ndarray,
    cutoff: float,
    prior: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None,
) -> Surroundings:
    """Look at some of the training frames, evenly spaced.

    Args:
        frames: of all files.
        index: numbers of those to train on.
        cutoff: angstrom.
        prior: energies and forces of frames, which a model need not learn.
    """
    chosen = index[:: max(1, len(index) // LOOKED_AT)]
    edges = beads = square = 0.0
    for part in np.array_split(chosen, max(1, len(chosen) // 32)):
        padded = frames.padded(part)
        real = np.arange(padded.R.shape[1]) < padded.n_beads[:, None]
        owner = np.repeat(np.arange(len(part)), padded.n_beads)
        x = torch.from_numpy(padded.R[real].astype(np.float64))
        edges += edges_of(x, torch.from_numpy(owner), cutoff).shape[1]
        beads += len(owner)
        F = padded.F if prior is None else padded.F - prior(part)[1]
        square += float(np.square(F[real], dtype=np.float64).sum())
    force = (square / (3.0 * beads)) ** 0.5
    neighbors = max(FEWEST_NEIGHBORS, edges / beads) if edges else 0.0
    return Surroundings(neighbors, force or 1.0)


def build_model(
    section: BeadModelSection,
    type_names: Sequence[str],
    prior: PriorFile | None,
    scale: Surroundings,
    seed: int,
    dtype: torch.dtype,
) -> BeadModel:
    """A model with its first weights.

    Args:
        section: `model` of the configuration.
        type_names: of the training's beads.
        prior: its prior.
        scale: what the section does not give.
        seed: of the first weights.
        dtype: of Allegro.

    Raises:
        ConfigError: no bead has a neighbour within the cutoff.
        MissingDependencyError: nequip-allegro is not installed.
    """
    allegro = None
    if section.use_allegro:
        if scale.neighbors == 0.0:
            raise ConfigError(
                f"no bead of the training frames has another within model.cutoff = "
                f"{section.cutoff:g} A: Allegro would learn nothing",
                remedy="neighbours along a chain are 3.8 A apart; raise model.cutoff, or set "
                "model.use_allegro=false",
            )
        measured = {"avg_num_neighbors": scale.neighbors, "energy_scale": scale.energy}
        changes = {"cutoff": section.cutoff, "seed": seed, **measured, **section.allegro_changes()}
        allegro = Allegro(AllegroSpec.of(section.allegro_size, type_names, **changes), dtype)
    return BeadModel(allegro, None if prior is None else Prior(prior))


@dataclass(frozen=True)
class Predictor:
    """Energies and forces of a batch, padded as its labels are.

    Attributes:
        bound: terms of a molecule by its number, where the prior is trained; else None, and the
            batch holds what the prior gives.
        neighbors: of a bead on average, for batches without data.
    """

    bound: Callable[[int], BoundTerms] | None
    neighbors: float

    def __call__(self, model: nn.Module, batch: Batch, training: bool) -> Mapping[str, Tensor]:
        """Predictions by label: `energy` (B,) and `forces` (B, N, 3)."""
        assert isinstance(model, BeadModel)
        t = batch.tensors
        n_atoms, coord = t["n_atoms"], t["coord"]
        b, width = coord.shape[:2]
        if coord.device.type == "meta":
            return self._shapes(model, batch)
        real = real_beads(n_atoms, width)  # [b, i]
        x, types = coord[real], t["types"][real]
        owner = torch.repeat_interleave(torch.arange(b, device=coord.device), n_atoms)
        edges = None
        if model.allegro is not None:
            edges = edges_of(x, owner, model.cutoff)
        bound = None
        if self.bound is not None:
            each = [self.bound(k) for k in t["molecule"].tolist()]
            bound = BoundTerms.join(each).to(coord.device)
        mode: Any = "ml" if self.bound is None else "full"
        energy, forces = model.energy_and_forces(
            x, types, bound, edges, owner, b, mode, differentiable=training
        )
        padded = torch.zeros(b, width, 3, dtype=forces.dtype, device=forces.device)
        padded = padded.index_put((real,), forces)
        if PRIOR_FORCES in t:
            energy, padded = energy + t[PRIOR_ENERGY], padded + t[PRIOR_FORCES]
        return {"energy": energy, "forces": padded}

    def _shapes(self, model: BeadModel, batch: Batch) -> Mapping[str, Tensor]:
        """The same of a batch without data, for estimates of memory: no bead is padding there."""
        t = batch.tensors
        b, width = t["coord"].shape[:2]
        n = b * width
        if model.allegro is None:  # a prior's memory is small
            nothing = torch.stack([p.sum() for p in model.parameters()]).sum()
            return {"energy": nothing.expand(b), "forces": nothing.expand(b, width, 3)}
        n_edges = int(n * min(self.neighbors, width - 1.0))
        types, edges = (
            torch.empty(shape, dtype=torch.int64, device="meta") for shape in ((n,), (2, n_edges))
        )
        x = t["coord"].reshape(n, 3).requires_grad_()
        energy = model.allegro(x, types, edges).reshape(b, width).sum(1)
        (gradient,) = torch.autograd.grad(energy.sum(), x, create_graph=True)
        return {"energy": energy, "forces": -gradient.reshape(b, width, 3)}
