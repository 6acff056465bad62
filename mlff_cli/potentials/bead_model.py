"""The coarse-grained model: what is learnt, and what is known before.

    E(R) = sum_i E_allegro,i(R) + sum_terms w_term E_prior,term(R)              F = -dE/dR

Molecules of a batch lie one after the other, without padding: `molecule` says whose a bead is.
Energies in kcal/mol, lengths in angstrom.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.data.beads.prior_file import prior_from_plain, prior_to_plain
from mlff_cli.potentials.allegro import Allegro, AllegroSpec
from mlff_cli.potentials.prior import BoundTerms, Prior

Mode = Literal["full", "prior", "ml"]
MODES: tuple[Mode, ...] = ("full", "prior", "ml")


class BeadModel(nn.Module):
    """Energy and forces of bead molecules.

    Args:
        allegro: the learnt part; None leaves the prior alone.
        prior: the prior; None leaves Allegro alone. It computes in float64.

    Raises:
        UsageError: neither part is there.
    """

    def __init__(self, allegro: Allegro | None, prior: Prior | None) -> None:
        super().__init__()
        if allegro is None and prior is None:
            raise UsageError("a coarse-grained model needs Allegro, a prior, or both")
        self.allegro = allegro
        self.prior = prior

    def check_mode(self, mode: str) -> None:
        """Refuse a mode that this model cannot compute.

        Raises:
            UsageError: an unknown mode, or one whose part is not there.
        """
        if mode not in MODES:
            raise UsageError(f"mode must be one of {', '.join(MODES)}, found {mode!r}")
        part = {"prior": self.prior, "ml": self.allegro}.get(mode, self)
        if part is None:
            absent = "prior" if mode == "prior" else "learnt part"
            raise UsageError(f"mode {mode!r} needs a {absent}, and the model has none")

    def forward(
        self,
        positions: Tensor,
        types: Tensor,
        bound: BoundTerms | None,
        edges: Tensor | None,
        molecule: Tensor,
        n_molecules: int,
        mode: Mode = "full",
    ) -> Tensor:
        """Energy of each molecule.

        Args:
            positions: (N, 3) angstrom, of all molecules.
            types: (N,) int64 numbers of types.
            bound: terms of the prior, joined over the molecules in their order; None where the mode
                has no prior.
            edges: (2, E) int64 (`bead_edges.edges_of`); None where the mode has no Allegro.
            molecule: (N,) int64 which molecule a bead belongs to; below 0 for one that is not
                there, which has no edges.
            n_molecules: how many there are.
            mode: full; prior alone; ml (Allegro) alone.

        Returns:
            (n_molecules,) float64 kcal/mol.

        Raises:
            UsageError: the model has no part for the mode.
            ValueError: a part is to be computed without its terms or edges.
        """
        self.check_mode(mode)
        energy = torch.zeros(n_molecules, dtype=torch.float64, device=positions.device)
        if self.allegro is not None and mode != "prior":
            if edges is None:
                raise ValueError("Allegro needs edges")
            beads = self.allegro(positions, types, edges)  # [i]; 0 for one that is not there
            energy = energy.index_add(0, molecule.clamp(min=0), beads)
        if self.prior is not None and mode != "ml":
            if bound is None:
                raise ValueError("the prior needs bound terms")
            energy = energy + self.prior(positions, bound).to(torch.float64).reshape(-1)
        return energy

    def energy_and_forces(
        self,
        positions: Tensor,
        types: Tensor,
        bound: BoundTerms | None,
        edges: Tensor | None,
        molecule: Tensor,
        n_molecules: int,
        mode: Mode = "full",
        *,
        differentiable: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Energies as `forward` gives them, and forces (N, 3) in kcal/mol/angstrom.

        Args:
            positions: see `forward`.
            types: see `forward`.
            bound: see `forward`.
            edges: see `forward`.
            molecule: see `forward`.
            n_molecules: see `forward`.
            mode: see `forward`.
            differentiable: keep the graph, to train on forces.

        Raises:
            UsageError: see `forward`.
            ValueError: see `forward`.
        """
        with torch.enable_grad():
            x = positions if positions.requires_grad else positions.detach().requires_grad_()
            energy = self(x, types, bound, edges, molecule, n_molecules, mode)
            if not energy.requires_grad:  # a prior that has no term for these molecules
                return energy, torch.zeros_like(x)
            (gradient,) = torch.autograd.grad(
                energy.sum(), x, create_graph=differentiable, allow_unused=True
            )
        forces = torch.zeros_like(x) if gradient is None else -gradient
        return (energy, forces) if differentiable else (energy.detach(), forces.detach())

    @property
    def cutoff(self) -> float:
        """Distance up to which edges are needed, angstrom; 0 without Allegro."""
        return 0.0 if self.allegro is None else self.allegro.spec.cutoff

    @property
    def type_names(self) -> tuple[str, ...]:
        """Names of types by their numbers."""
        if self.allegro is not None:
            return self.allegro.spec.type_names
        assert self.prior is not None
        return tuple(self.prior.file.species)

    def architecture(self) -> dict[str, Any]:
        """Plain values that `bead_model_of` builds the same model from; weights are not in it."""
        allegro, prior = self.allegro, self.prior
        return {
            "allegro": None if allegro is None else allegro.spec.model_dump(mode="json"),
            "prior": None if prior is None else prior_to_plain(prior.file),
            "type_names": list(self.type_names),
        }


def bead_model_of(
    architecture: Mapping[str, Any], dtype: torch.dtype = torch.float32, where: str = "model"
) -> BeadModel:
    """Build a model; its weights are Allegro's first ones and the prior file's values.

    Args:
        architecture: what `BeadModel.architecture` gave.
        dtype: of Allegro.
        where: the file, for messages.

    Raises:
        DataError: the architecture makes no sense.
        MissingDependencyError: it has an Allegro, and nequip-allegro is not installed.
    """
    given, prior = architecture.get("allegro"), architecture.get("prior")
    if given is None and prior is None:
        raise DataError("the model has neither Allegro nor a prior", where=where)
    try:
        spec = None if given is None else AllegroSpec.model_validate(given)
    except ValidationError as error:
        raise DataError(
            f"the file's Allegro makes no sense: {error.errors()[0]['msg']} "
            f"({'.'.join(map(str, error.errors()[0]['loc']))})",
            where=where,
            remedy="make the file again",
        ) from error
    named = architecture.get("type_names")
    if spec is not None and named is not None and list(named) != list(spec.type_names):
        raise DataError(
            f"types of beads are those of Allegro, {', '.join(spec.type_names)}, "
            f"found {named!r:.80}",
            where=where,
            remedy="make the file again",
        )
    return BeadModel(
        None if spec is None else Allegro(spec, dtype),
        None if prior is None else Prior(prior_from_plain(prior, where)),
    )
