"""Molecules of beads and tiny models of them."""

import numpy as np
import torch

from mlff_cli.data.model_file import ModelFile
from mlff_cli.potentials.bead_topology import BeadTopology
from tests.potentials.bead_model_cases import tiny_model
from tests.potentials.prior_cases import chain, chain_terms, chain_types


def topology(n=8, seed=0, name="chain", start=True):
    """A chain of n beads of the types that `prior_cases` know."""
    types = tuple(chain_types(n, seed))
    return BeadTopology(
        name=name,
        types=types,
        bead_names=("CA",) * n,
        residue_names=types,
        residues=np.arange(n),
        chains=np.zeros(n, dtype=np.int64),
        masses=np.linspace(60.0, 120.0, n),
        terms=chain_terms(n),
        start=chain(n, seed).numpy() if start else None,
    )


def members(n, dtype=torch.float32, **changes):
    """Models that differ in their first weights."""
    return [
        tiny_model(dtype=dtype, seed=seed, **changes).requires_grad_(False) for seed in range(n)
    ]


def model_file(model, molecules):
    """The file that training would write of a model."""
    return ModelFile(
        weights=dict(model.state_dict()),
        architecture=model.architecture(),
        family="coarse-grained",
        config={},
        species=[],
        fidelities=[],
        sae={},
        provenance={"command": "mlff train", "inputs": {}},
        units={"energy": "kcal/mol", "length": "angstrom"},
        molecules=[molecule.plain() for molecule in molecules],
    )
