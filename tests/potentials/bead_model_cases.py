"""Tiny bead models and ragged batches of chains for them."""

from dataclasses import dataclass

import torch

from mlff_cli.potentials.allegro import Allegro, AllegroSpec
from mlff_cli.potentials.bead_edges import edges_of
from mlff_cli.potentials.bead_model import BeadModel
from mlff_cli.potentials.prior import BoundTerms, Prior
from tests.potentials.prior_cases import PRIORS, SPECIES, chain, chain_terms, chain_types

TINY = {
    "l_max": 1,
    "num_layers": 2,
    "num_scalar_features": 8,
    "num_tensor_features": 4,
    "mlp_width": 8,
    "energy_scale": 5.0,
}


def tiny_spec(**changes):
    return AllegroSpec(type_names=SPECIES, **{**TINY, **changes})


def tiny_allegro(dtype=torch.float64, **changes):
    return Allegro(tiny_spec(**changes), dtype)


def tiny_model(prior="parametric", dtype=torch.float64, **changes):
    return BeadModel(tiny_allegro(dtype, **changes), Prior(PRIORS[prior]))


def type_numbers(names):
    return torch.tensor([SPECIES.index(name) for name in names])


@dataclass
class Batch:
    """Chains of these lengths, one after the other, as `BeadModel` takes them."""

    positions: torch.Tensor
    types: torch.Tensor
    bound: BoundTerms
    edges: torch.Tensor
    molecule: torch.Tensor
    n_molecules: int

    @classmethod
    def of(cls, model, lengths, seed=0):
        names = [chain_types(n, seed + k) for k, n in enumerate(lengths)]
        x = torch.cat([chain(n, seed + k) for k, n in enumerate(lengths)])
        terms = [model.prior.bind(chain_terms(n), t) for n, t in zip(lengths, names, strict=True)]
        molecule = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
        return cls(
            x,
            type_numbers(sum(names, [])),
            BoundTerms.join(terms),
            edges_of(x, molecule, model.cutoff),
            molecule,
            len(lengths),
        )

    def inputs(self):
        return (
            self.positions,
            self.types,
            self.bound,
            self.edges,
            self.molecule,
            self.n_molecules,
        )
