"""Forces of a coarse-grained model part by part, from a model file or a compiled artifact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from mlff_cli.core.errors import UsageError
from mlff_cli.deploy.beads.artifact import load_bead_potential
from mlff_cli.potentials.bead_model import BeadModel
from mlff_cli.potentials.bead_topology import BeadTopology
from mlff_cli.potentials.bound_bead_model import BoundBeadModel

BEADS = 4096  # of all frames that are computed at once
PARTS = ("prior", "ml")
Forces = Callable[[np.ndarray], dict[str, np.ndarray]]


def forces_by_part(model: BeadModel, topology: BeadTopology, device: str) -> Forces:
    """A function from positions (T, n, 3) in angstrom to forces (T, n, 3) by mode.

    Modes are "full", and "prior" and "ml" where the model has both parts; kcal/mol/angstrom.

    Raises:
        DataError: the model does not know a type of the molecule.
    """
    bound = BoundBeadModel([model], topology).to(device)
    parts = PARTS if bound.has_prior and bound.has_allegro else ("full",)

    def compute(x: torch.Tensor) -> dict[str, np.ndarray]:
        found = {mode: bound(x, mode)["forces"].cpu().numpy() for mode in parts}
        if len(parts) > 1:  # each part once
            found["full"] = found["prior"] + found["ml"]
        return found

    return _in_batches(compute, topology.n_beads, device)


def forces_of_artifact(path: Path | str, device: str) -> Forces:
    """The same of a compiled artifact.

    Raises:
        StorageError: the file is missing.
        DataError: it is no artifact of a coarse-grained model.
    """
    whole = load_bead_potential(path, device)
    potentials = {"full": whole}
    try:
        potentials |= {mode: load_bead_potential(path, device, mode) for mode in PARTS}
    except UsageError:  # it has one of the parts, which is the whole
        potentials = {"full": whole}

    def compute(x: torch.Tensor) -> dict[str, np.ndarray]:
        return {mode: one(x)[1].cpu().numpy() for mode, one in potentials.items()}

    return _in_batches(compute, whole.n_beads, device)


def _in_batches(
    compute: Callable[[torch.Tensor], dict[str, np.ndarray]], n_beads: int, device: str
) -> Forces:
    step = max(1, BEADS // n_beads)

    def work(x: np.ndarray) -> dict[str, np.ndarray]:
        pieces = [
            compute(torch.tensor(x[k : k + step], dtype=torch.float64, device=device))
            for k in range(0, len(x), step)
        ]
        return {mode: np.concatenate([p[mode] for p in pieces]) for mode in pieces[0]}

    return work
