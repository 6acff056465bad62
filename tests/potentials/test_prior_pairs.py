"""Pairs within reach give the energies and forces of all pairs."""

import numpy as np
import pytest
import torch

from mlff_cli.physics.terms import Terms
from mlff_cli.potentials.prior import Prior
from mlff_cli.potentials.prior_delta import prior_forces
from mlff_cli.potentials.prior_pairs import NearTerms
from tests.potentials.prior_cases import PRIORS, chain, chain_terms, chain_types

N, T = 60, 5


@pytest.fixture(params=PRIORS)
def case(request):
    prior = Prior(PRIORS[request.param])
    return prior, prior.bind(chain_terms(N), chain_types(N))


def test_energies_and_forces_are_those_of_all_pairs(case):
    prior, bound = case
    x = chain(N, 3, frames=T)
    x[1] *= 0.3  # crowded
    x[2] *= 40.0  # torn apart
    e, f = prior.energy_and_forces(x, bound)
    energy, forces = prior_forces(prior, bound, x.numpy())
    np.testing.assert_allclose(energy, e.numpy(), rtol=1e-12)
    np.testing.assert_allclose(forces, f.numpy(), rtol=1e-10, atol=1e-10 * f.abs().max().item())


def test_far_pairs_are_left_out_and_near_ones_are_not(case):
    prior, bound = case
    near = NearTerms(prior, bound)
    x = chain(N, 3, frames=T).numpy()
    terms = near.of(x)
    assert terms.n_molecules == T
    bonded = T * sum(len(b) for b, c in zip(bound.rows, prior.cutoffs(), strict=True) if c is None)
    close = np.linalg.norm(x[:, :, None] - x[:, None], axis=-1) <= near.reach
    i, j = np.triu_indices(N, 2)
    assert terms.n_terms - bonded == close[:, i, j].sum()
    assert terms.n_terms < T * bound.n_terms


@pytest.mark.parametrize("shift", [-1e-9, 1e-9])
def test_the_edge_of_reach(shift):
    prior = Prior(PRIORS["parametric"])
    bound = prior.bind(Terms(2, pairs=[[0, 1]], separation=[6]), ["TRP", "TRP"])
    x = np.zeros((1, 2, 3))
    x[0, 1, 0] = NearTerms(prior, bound).reach + shift
    assert NearTerms(prior, bound).of(x).n_terms == (shift < 0)
    assert prior(torch.from_numpy(x), bound).item() == pytest.approx(0.0, abs=1e-20)


def test_molecules_without_pairs(case):
    prior, _ = case
    for n in (1, 2):
        bound = prior.bind(chain_terms(n), chain_types(n))
        energy, forces = prior_forces(prior, bound, np.zeros((3, n, 3)))
        assert energy.shape == (3,)
        assert np.isfinite(forces).all()
