"""A coarse-grained model bound to one molecule: what engines call and artifacts hold.

    E(R) = mean_m [E_allegro,m(R) + E_prior,m(R)]                               F = -dE/dR
    s_E  = std_m [E_m(R) - E_m(R_start)]         s_F,i = sqrt(sum_m |F_m,i - F_i|^2/(M - 1))

over the M members of an ensemble. Forces do not tell a member's constant of energy, so that members
are compared from the molecule's first frame on. Frames of a batch are copies of the molecule.
"""
# ruff: noqa: UP006, UP035, UP045

from typing import Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.potentials.bead_edges import COINCIDENT
from mlff_cli.potentials.bead_model import BeadModel
from mlff_cli.potentials.bead_topology import BeadTopology
from mlff_cli.potentials.prior import Prior
from mlff_cli.potentials.scripted_prior import ScriptedPrior

PAIRS_AT_ONCE = 1 << 22  # distances held while edges are looked for, some 100 MB


class BoundBeadModel(nn.Module):
    """Energy and forces of frames of one molecule; TorchScript can compile it.

    Allegro computes in its own type, the prior in `prior_dtype`, sums are float64.

    Args:
        members: one model, or those of an ensemble, alike in parts and types.
        topology: the molecule.
        prior_dtype: float64 or float32.

    Attributes:
        n_beads: n.
        n_members: M.
        cutoff: largest one of the Allegros, angstrom; 0 without.
        has_allegro: whether there is a learnt part.
        has_prior: whether there is a prior.

    Raises:
        UsageError: members of different parts or types.
        DataError: a type of the molecule is unknown to the model, or a term to its prior.
    """

    types: Tensor
    allegro_start: Tensor
    prior_start: Tensor

    def __init__(
        self,
        members: Sequence[BeadModel],
        topology: BeadTopology,
        prior_dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        _check_alike(members)
        first = members[0]
        self.n_beads, self.n_members = topology.n_beads, len(members)
        self.cutoff = max(float(member.cutoff) for member in members)
        self.coincident = float(COINCIDENT)
        self.pairs_at_once = PAIRS_AT_ONCE
        self.prior_dtype = prior_dtype
        self.has_allegro, self.has_prior = first.allegro is not None, first.prior is not None
        self.register_buffer("types", _type_numbers(first, topology))
        self.allegros = nn.ModuleList(m.allegro for m in members if m.allegro is not None)
        self.priors = nn.ModuleList(_priors(members, topology, prior_dtype))
        self.register_buffer("allegro_start", torch.zeros(len(self.allegros)).double())
        self.register_buffer("prior_start", torch.zeros(len(self.priors)).double())
        if topology.start is not None and len(members) > 1:
            start = torch.from_numpy(topology.start)[None]
            with torch.enable_grad():
                if self.has_allegro:
                    self.allegro_start = self.learnt(start, None)[0][:, 0]
                if self.has_prior:
                    self.prior_start = self.known(start)[0][:, 0]

    def forward(
        self, positions: Tensor, mode: str = "full", candidates: Optional[Tensor] = None
    ) -> Dict[str, Tensor]:
        """Energy and forces.

        Args:
            positions: (B, n, 3) angstrom.
            mode: full, prior or ml (Allegro alone).
            candidates: (2, K) int64 pairs of beads of the batch laid flat, B n in all, among which
                the edges are, as `neighbours` gives them with a reach beyond the cutoff; None
                looks at all pairs.

        Returns:
            energy (B,) float64 kcal/mol; forces (B, n, 3) kcal/mol/angstrom in the type of
            positions; of an ensemble energy_std (B,) and forces_std (B, n). None can be
            differentiated.

        Raises:
            ValueError: another shape, an unknown mode, or one whose part is not there.
            RuntimeError: called under torch.inference_mode, which allows no forces.
        """
        self.check(positions, mode)
        with_gradients = torch.is_grad_enabled()
        # a context manager cannot be used here: TorchScript ignores torch.enable_grad
        torch.set_grad_enabled(True)
        energies = torch.zeros(1, 1, dtype=torch.float64, device=positions.device)  # [m, b]
        forces = torch.zeros(1, 1, 1, 1, dtype=torch.float64, device=positions.device)
        relative = energies  # [m, b] from the start on
        if mode != "prior" and self.has_allegro:
            e, f = self.learnt(positions, candidates)
            energies, forces = energies + e, forces + f
            relative = relative + (e - self.allegro_start[:, None])
        if mode != "ml" and self.has_prior:
            e, f = self.known(positions)
            energies, forces = energies + e, forces + f
            relative = relative + (e - self.prior_start[:, None])
        torch.set_grad_enabled(with_gradients)
        result = {"energy": energies.mean(0), "forces": forces.mean(0).to(positions.dtype)}
        if self.n_members > 1:
            if energies.shape[0] == 1:  # a prior that all members share
                result["energy_std"] = torch.zeros_like(energies[0])
                result["forces_std"] = torch.zeros_like(result["forces"][:, :, 0])
            else:
                result["energy_std"] = relative.std(0)
                spread = forces.var(0).sum(-1).sqrt()
                result["forces_std"] = spread.to(positions.dtype)
        return result

    @torch.jit.export
    def neighbours(self, positions: Tensor, reach: float) -> Tensor:
        """All ordered pairs (2, E) of beads nearer than `reach`, but for coincident ones.

        Args:
            positions: (B, n, 3) angstrom.
            reach: angstrom.

        Returns:
            int64 numbers of beads of the batch laid flat, sorted by the first bead.
        """
        n = positions.shape[1]
        x = positions.detach()
        low, high = self.coincident * self.coincident, reach * reach
        found: List[Tensor] = []
        step = max(1, self.pairs_at_once // max(1, n * n))
        for start in range(0, x.shape[0], step):
            frames = x[start : start + step]
            # squares coordinate by coordinate: a third of the memory
            d2 = (frames[:, :, None, 0] - frames[:, None, :, 0]).square()  # [b, i, j]
            d2 = d2 + (frames[:, :, None, 1] - frames[:, None, :, 1]).square()
            d2 = d2 + (frames[:, :, None, 2] - frames[:, None, :, 2]).square()
            b, i, j = torch.where((d2 < high) & (d2 > low))
            b = (b + start) * n
            found.append(torch.stack([b + i, b + j]))
        if len(found) == 0:
            return torch.zeros(2, 0, dtype=torch.int64, device=x.device)
        return torch.cat(found, 1)

    def learnt(self, positions: Tensor, candidates: Optional[Tensor]) -> Tuple[Tensor, Tensor]:
        """Energies (M, B) and forces (M, B, n, 3) of the Allegros, float64."""
        b, n = positions.shape[0], self.n_beads
        x = positions.detach().to(torch.float64).requires_grad_(True)
        flat = x.reshape(-1, 3)
        if candidates is None:
            edges = self.neighbours(x, self.cutoff)
        else:
            d2 = (flat.detach()[candidates[1]] - flat.detach()[candidates[0]]).square().sum(-1)
            low, high = self.coincident * self.coincident, self.cutoff * self.cutoff
            edges = candidates[:, (d2 < high) & (d2 > low)]
        types = self.types.repeat(b)
        energies: List[Tensor] = []
        forces: List[Tensor] = []
        for allegro in self.allegros:
            energy = allegro(flat, types, edges).reshape(b, n).sum(1)
            energies.append(energy.detach())
            forces.append(self.minus_gradient(energy, x))
        return torch.stack(energies), torch.stack(forces)

    def known(self, positions: Tensor) -> Tuple[Tensor, Tensor]:
        """Energies (M or 1, B) and forces of the priors, float64; 1: all members share one."""
        x = positions.detach().to(self.prior_dtype).clone().requires_grad_(True)
        energies: List[Tensor] = []
        forces: List[Tensor] = []
        for prior in self.priors:
            energy = prior(x)
            energies.append(energy.detach().to(torch.float64))
            forces.append(self.minus_gradient(energy, x).to(torch.float64))
        return torch.stack(energies), torch.stack(forces)

    def minus_gradient(self, energy: Tensor, x: Tensor) -> Tensor:
        """Forces; zero where the energy does not depend on the positions."""
        if not energy.requires_grad:
            return torch.zeros_like(x)
        gradient = torch.autograd.grad([energy.sum()], [x], allow_unused=True)[0]
        return torch.zeros_like(x) if gradient is None else -gradient

    def check(self, positions: Tensor, mode: str) -> None:
        """Refuse what cannot be computed; see `forward`."""
        if positions.detach().clone().is_inference():
            raise RuntimeError(
                "forces need gradients, which torch.inference_mode forbids; use torch.no_grad"
            )
        if positions.dim() != 3 or positions.shape[1] != self.n_beads or positions.shape[2] != 3:
            raise ValueError(
                f"positions must be (B, {self.n_beads}, 3), found {list(positions.shape)}"
            )
        known = mode == "full" or (mode == "prior" and self.has_prior)
        if not known and not (mode == "ml" and self.has_allegro):
            raise ValueError(f"mode must be full, prior or ml, and its part be there, found {mode}")


def _check_alike(members: Sequence[BeadModel]) -> None:
    if not members:
        raise UsageError("a model is needed, found none")
    parts = {(m.allegro is None, m.prior is None) for m in members}
    if len(parts) > 1:
        raise UsageError(
            "members of an ensemble must have the same parts: some have an Allegro or a prior "
            "that others lack",
            remedy="compile models of one training, as `mlff train --ensemble` makes them",
        )
    names = {m.type_names for m in members}
    if len(names) > 1:
        shown = "; ".join(", ".join(types[:6]) for types in sorted(names)[:2])
        raise UsageError(
            f"members of an ensemble must know the same types of beads, found {shown}",
            remedy="compile models of one training, as `mlff train --ensemble` makes them",
        )


def _type_numbers(model: BeadModel, topology: BeadTopology) -> Tensor:
    """Numbers (n,) of the beads' types in the model."""
    number = {name: k for k, name in enumerate(model.type_names)}
    unknown = sorted(set(topology.types) - set(number))
    if unknown:
        raise DataError(
            f"the model does not know the type {unknown[0]!r} (bead "
            f"{topology.types.index(unknown[0])} of {topology.name!r}); it knows "
            f"{', '.join(model.type_names[:8])}{' ...' if len(model.type_names) > 8 else ''}",
            remedy="map the molecule as the model's data were, or train on data with this type",
        )
    return torch.tensor([number[name] for name in topology.types])


def _priors(
    members: Sequence[BeadModel], topology: BeadTopology, dtype: torch.dtype
) -> List[ScriptedPrior]:
    """One per member, or one for all where they are equal."""
    priors = [member.prior for member in members if member.prior is not None]
    if all(_same(prior, priors[0]) for prior in priors):
        priors = priors[:1]
    return [
        ScriptedPrior(prior, prior.bind(topology.terms, topology.types)).to(dtype)
        for prior in priors
    ]


def _same(one: Prior, other: Prior) -> bool:
    """Whether two priors have the same energies: parameters, weights and fading."""
    a, b = one.state_dict(), other.state_dict()
    weights = [{name: term.weight for name, term in p.file.terms.items()} for p in (one, other)]
    return (
        weights[0] == weights[1]
        and one.file.damping == other.file.damping
        and a.keys() == b.keys()
        and all(torch.equal(a[name], b[name]) for name in a)
    )
