"""The scripted prior is the prior: the same numbers for every form, and no NaN."""

import pytest
import torch

from mlff_cli.deploy.torchscript import script
from mlff_cli.physics.terms import Terms
from mlff_cli.potentials import scripted_prior
from mlff_cli.potentials.prior import BoundTerms, Prior
from mlff_cli.potentials.scripted_prior import NearPairs, ScriptedPrior
from tests.potentials.prior_cases import PRIORS, chain, chain_terms, chain_types

CALLS = 3  # TorchScript rewrites its graph after the first calls


def both(name, n, seed=0):
    prior = Prior(PRIORS[name])
    bound = prior.bind(chain_terms(n), chain_types(n, seed))
    return prior, bound, ScriptedPrior(prior, bound)


def with_forces(energy_of, x):
    x = x.clone().requires_grad_()
    energy = energy_of(x)
    return energy.detach(), -torch.autograd.grad(energy.sum(), x)[0]


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("n", [2, 3, 12, 40])
def test_it_is_the_prior(name, n):
    """Energy and forces to 1e-12; 40 beads have enough pairs to leave out the far ones."""
    prior, bound, bare = both(name, n)
    scripted, x = script(bare), chain(n, frames=4)
    assert any(isinstance(table, NearPairs) for table in bare.tables) == (n == 40)
    wanted = prior.energy_and_forces(x, bound)
    for _ in range(CALLS):
        for seen in (with_forces(scripted, x), with_forces(bare, x)):
            for s, w in zip(seen, wanted, strict=True):
                torch.testing.assert_close(s, w, rtol=1e-12, atol=1e-12 * w.abs().max().item())


@pytest.mark.parametrize("name", PRIORS)
def test_near_pairs_are_all_pairs_that_count(name, monkeypatch):
    x = chain(12, frames=3)
    every = with_forces(both(name, 12)[2], x)
    monkeypatch.setattr(scripted_prior, "MANY", 1)
    torch.testing.assert_close(with_forces(both(name, 12)[2], x), every, rtol=1e-13, atol=1e-12)


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("many", [1, 10**6])
def test_no_geometry_gives_nan(name, many, monkeypatch):
    monkeypatch.setattr(scripted_prior, "MANY", many)
    scripted = script(both(name, 8)[2])
    straight = torch.arange(8.0, dtype=torch.float64)[:, None] * torch.tensor([3.8, 0.0, 0.0])
    beside = straight.clone()
    beside[3] = beside[4]
    x = torch.stack([straight.double(), torch.zeros(8, 3).double(), beside.double()])
    for _ in range(CALLS):
        energy, forces = with_forces(scripted, x)
        assert energy.isfinite().all()
        assert forces.isfinite().all()


def test_parameters_are_those_of_now():
    """A trained prior, not the file that it began with."""
    prior = Prior(PRIORS["parametric"])
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.mul_(1.1)
    bound = prior.bind(chain_terms(8), chain_types(8))
    x = chain(8, frames=2)
    torch.testing.assert_close(ScriptedPrior(prior, bound)(x), prior(x, bound))


def test_float32_where_asked():
    prior, bound, scripted = both("spline", 12)
    x = chain(12, frames=4)
    seen, wanted = scripted.float()(x.float()), prior(x, bound)
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen.double(), wanted, rtol=1e-4, atol=1e-3)


def test_a_molecule_without_terms():
    prior = Prior(PRIORS["parametric"])
    one = script(ScriptedPrior(prior, prior.bind(Terms(1), ["ALA"])))
    assert one(torch.zeros(3, 1, 3).double()).tolist() == [0.0] * 3


def test_several_molecules_are_refused():
    prior, bound, _ = both("parametric", 5)
    with pytest.raises(ValueError, match="several joined"):
        ScriptedPrior(prior, BoundTerms.join([bound, bound]))
