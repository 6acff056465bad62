"""A coarse-grained model of one molecule as engines call it: positions to energy and forces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mlff_cli.core.errors import UsageError
from mlff_cli.data.model_file import ModelFile
from mlff_cli.deploy import torchscript
from mlff_cli.deploy.beads.models import bead_model_from
from mlff_cli.potentials.bead_model import MODES
from mlff_cli.potentials.bead_topology import BeadTopology
from mlff_cli.potentials.bound_bead_model import BoundBeadModel

DTYPES = {"float32": torch.float32, "float64": torch.float64}


class BeadPotential:
    """Energy and forces of frames of one molecule.

    Args:
        module: a scripted `BoundBeadModel`, on its device.
        topology: the molecule.
        metadata: what is known of the model.
        mode: full, prior, or ml (Allegro alone).
        device: where the module is.

    Attributes:
        topology: the molecule.
        metadata: what is known of the model.
        mode: what is computed.
        device: where positions must be.

    Raises:
        UsageError: an unknown mode, or one whose part the model lacks.
    """

    def __init__(
        self,
        module: torch.jit.ScriptModule,
        topology: BeadTopology,
        metadata: Mapping[str, Any],
        mode: str = "full",
        device: str = "cpu",
    ) -> None:
        check_mode(mode, has_prior=bool(module.has_prior), has_allegro=bool(module.has_allegro))
        self.topology, self.metadata = topology, dict(metadata)
        self.mode, self.device = mode, device
        self._module = self._settled(module)

    def _settled(self, module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
        """With weights as constants, and as it computes from the first call on."""
        x = torch.zeros(1, self.n_beads, 3, dtype=torch.float64, device=self.device)
        if self.topology.start is not None:
            x[0] = torch.from_numpy(self.topology.start)
        frozen = torchscript.freeze(module)
        with torchscript.unspecialised():
            frozen(x, self.mode)
        return frozen

    @property
    def n_beads(self) -> int:
        """Beads of the molecule, n."""
        return self.topology.n_beads

    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Energy (B,) float64 kcal/mol and forces (B, n, 3) kcal/mol/angstrom.

        Args:
            positions: (B, n, 3) angstrom; forces have their type.
        """
        out = self.compute(positions)
        return out["energy"], out["forces"]

    def compute(self, positions: Tensor) -> dict[str, Tensor]:
        """Energy and forces; of an ensemble energy_std (B,) and forces_std (B, n), too.

        Args:
            positions: (B, n, 3) angstrom.
        """
        out: dict[str, Tensor] = self._module(positions, self.mode)
        # once it has profiled a module, TorchScript forgets that energies were detached inside
        return {name: value.detach() for name, value in out.items()}


def check_mode(mode: str, *, has_prior: bool, has_allegro: bool) -> None:
    """Refuse an unknown mode, and one whose part is not there.

    Raises:
        UsageError: it is one of these.
    """
    if mode not in MODES:
        raise UsageError(f"mode must be one of {', '.join(MODES)}, found {mode!r}")
    if not {"full": True, "prior": has_prior, "ml": has_allegro}[mode]:
        absent = "prior" if mode == "prior" else "learnt part"
        raise UsageError(f"mode {mode!r} needs a {absent}, and the model has none")


def bead_potential_of(
    file: ModelFile | Sequence[ModelFile],
    topology: BeadTopology,
    mode: str = "full",
    device: str = "cpu",
    *,
    dtype: str | None = None,
    where: str = "model",
) -> BeadPotential:
    """The potential of a molecule straight from a model file, or from those of an ensemble.

    Args:
        file: one or more.
        topology: the molecule; one that the model was not trained on will do, if it knows its
            types.
        mode: full, prior, or ml (Allegro alone).
        device: where to compute.
        dtype: of Allegro, float32 or float64; None: as it was trained.
        where: the file's name, for messages.

    Raises:
        UsageError: another family, or a mode whose part the model lacks.
        DataError: the model does not know a type or a term of the molecule.
        MissingDependencyError: nequip-allegro is needed and not installed.
    """
    files = [file] if isinstance(file, ModelFile) else list(file)
    wanted = None if dtype is None else DTYPES[dtype]
    models = [bead_model_from(f, where, wanted, prior_only=mode == "prior") for f in files]
    bound = BoundBeadModel(models, topology)
    check_mode(mode, has_prior=bound.has_prior, has_allegro=bound.has_allegro)
    module = torchscript.script(bound).to(device)
    metadata = {"family": files[0].family, "units": dict(files[0].units)}
    return BeadPotential(module, topology, metadata, mode, device)
