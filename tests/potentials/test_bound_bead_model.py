"""A model bound to a molecule is the model, frame by frame, alone and in ensembles."""

import dataclasses

import pytest
import torch

from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.potentials.bead_edges import edges_of
from mlff_cli.potentials.bead_model import MODES, BeadModel
from mlff_cli.potentials.bound_bead_model import BoundBeadModel
from mlff_cli.potentials.prior import BoundTerms, Prior
from tests.deploy.beads.cases import members, topology
from tests.potentials.prior_cases import PRIORS, chain

N, T = 7, 3
X = chain(N, seed=4, frames=T)
MOLECULE = topology(N)


@pytest.fixture(scope="module")
def three():
    return members(3, dtype=torch.float64)


def eager(model, mode):
    bound = BoundTerms.join([model.prior.bind(MOLECULE.terms, MOLECULE.types)] * T)
    types = torch.tensor([model.type_names.index(name) for name in MOLECULE.types]).repeat(T)
    flat, molecule = X.reshape(-1, 3), torch.arange(T).repeat_interleave(N)
    edges = edges_of(flat, molecule, model.cutoff)
    energy, forces = model.energy_and_forces(flat, types, bound, edges, molecule, T, mode)
    return energy, forces.reshape(X.shape)


@pytest.mark.parametrize("mode", MODES)
def test_it_is_the_model(three, mode):
    out = BoundBeadModel(three[:1], MOLECULE)(X, mode)
    energy, forces = eager(three[0], mode)
    torch.testing.assert_close(out["energy"], energy, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(out["forces"], forces, rtol=1e-9, atol=1e-9)
    assert sorted(out) == ["energy", "forces"]


def test_an_ensemble_is_the_mean_and_spread_of_its_members(three):
    """Energies are compared from the first frame on: forces leave their constants open."""
    out = BoundBeadModel(three, MOLECULE)(X)
    energies, forces = map(torch.stack, zip(*(eager(m, "full") for m in three), strict=True))
    torch.testing.assert_close(out["energy"], energies.mean(0))
    torch.testing.assert_close(out["forces"], forces.mean(0))
    start = torch.from_numpy(MOLECULE.start)[None]
    zero = torch.stack([BoundBeadModel([m], MOLECULE)(start)["energy"] for m in three])
    torch.testing.assert_close(out["energy_std"], (energies - zero).std(0))
    torch.testing.assert_close(out["forces_std"], forces.var(0).sum(-1).sqrt())


def test_members_may_have_priors_of_their_own(three):
    other = Prior(PRIORS["parametric"])
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.05)
    shared = BoundBeadModel(three[:2], MOLECULE)
    trained = BoundBeadModel([three[0], BeadModel(three[1].allegro, other)], MOLECULE)
    assert [len(shared.priors), len(trained.priors)] == [1, 2]
    assert shared(X, "prior")["energy_std"].tolist() == [0.0] * T
    out = trained(X, "prior")
    bound = other.bind(MOLECULE.terms, MOLECULE.types)
    mean = (three[0].prior(X, bound) + other(X, bound)) / 2
    torch.testing.assert_close(out["energy"], mean)
    assert (out["forces_std"] > 0.0).any()


def test_candidates_beyond_the_cutoff_change_nothing(three):
    bound = BoundBeadModel(three[:1], MOLECULE)
    near = bound.neighbours(X, bound.cutoff)
    molecule = torch.arange(T).repeat_interleave(N)
    assert torch.equal(near, edges_of(X.reshape(-1, 3), molecule, bound.cutoff))
    wide = bound.neighbours(X, bound.cutoff + 3.0)
    assert wide.shape[1] > near.shape[1]
    for out in (bound(X, "ml", wide), bound(X, "ml", near)):
        torch.testing.assert_close(out, bound(X, "ml"), rtol=0.0, atol=0.0)


def test_frames_are_looked_at_in_pieces(three):
    bound = BoundBeadModel(three[:1], MOLECULE)
    whole = bound.neighbours(X, 9.0)
    bound.pairs_at_once = N * N
    assert torch.equal(bound.neighbours(X, 9.0), whole)


def test_beads_far_apart_or_on_one_another(three):
    bound = BoundBeadModel(three[:1], MOLECULE)
    out = bound(torch.stack([X[0] * 100.0, X[0] * 0.0]))
    assert out["energy"].isfinite().all()
    assert out["forces"].isfinite().all()
    assert bound(X[:0])["forces"].shape == (0, N, 3)


def test_gradients_are_left_as_they_were(three):
    bound = BoundBeadModel(three[:1], MOLECULE)
    with torch.no_grad():
        quiet = bound(X)
        assert not torch.is_grad_enabled()
    x = X.clone().requires_grad_()
    torch.testing.assert_close(bound(x)["forces"], quiet["forces"])
    assert x.grad is None
    with torch.inference_mode(), pytest.raises(RuntimeError, match="inference_mode forbids"):
        bound(X.clone())


def test_what_cannot_be_computed_is_refused(three):
    bound = BoundBeadModel([BeadModel(None, three[0].prior)], MOLECULE)
    with pytest.raises(ValueError, match=r"must be \(B, 7, 3\)"):
        bound(X[:, :5])
    with pytest.raises(ValueError, match="its part be there, found ml"):
        bound(X, "ml")
    with pytest.raises(UsageError, match="same parts"):
        BoundBeadModel([three[0], BeadModel(None, three[1].prior)], MOLECULE)
    with pytest.raises(UsageError, match="none"):
        BoundBeadModel([], MOLECULE)
    odd = dataclasses.replace(MOLECULE, types=("XYZ", *MOLECULE.types[1:]))
    with pytest.raises(DataError, match=r"type 'XYZ' \(bead 0 of 'chain'\)"):
        BoundBeadModel(three[:1], odd)
