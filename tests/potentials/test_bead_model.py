"""The whole bead model: sums of its parts, ragged batches, and no NaN anywhere."""

import pytest
import torch

from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.potentials.bead_edges import edges_of
from mlff_cli.potentials.bead_model import MODES, BeadModel, bead_model_of
from mlff_cli.potentials.prior import Prior
from tests.potentials.bead_model_cases import Batch, tiny_model, tiny_spec
from tests.potentials.prior_cases import PRIORS

LENGTHS = [10, 4, 1, 7]


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def batch(model):
    return Batch.of(model, LENGTHS)


def test_the_whole_is_the_sum_of_its_parts(model, batch):
    (e, f), (e_prior, f_prior), (e_ml, f_ml) = (
        model.energy_and_forces(*batch.inputs(), mode) for mode in MODES
    )
    torch.testing.assert_close(e, e_prior + e_ml, atol=1e-10, rtol=1e-12)
    torch.testing.assert_close(f, f_prior + f_ml, atol=1e-10, rtol=1e-12)
    assert e.dtype == f.dtype == torch.float64
    assert min(e_ml.abs().max(), e_prior.abs().max()) > 1e-2


def test_a_ragged_batch_is_each_molecule_by_itself(model, batch):
    energy, forces = model.energy_and_forces(*batch.inputs())
    start = 0
    for k, n in enumerate(LENGTHS):
        one = Batch.of(model, [n], seed=k)
        e, f = model.energy_and_forces(*one.inputs())
        torch.testing.assert_close(energy[k : k + 1], e, atol=1e-10, rtol=1e-12)
        torch.testing.assert_close(forces[start : start + n], f, atol=1e-10, rtol=1e-12)
        start += n


@pytest.mark.parametrize("mode", MODES)
def test_forces_are_the_gradient_of_the_energy(model, mode):
    batch = Batch.of(model, [5, 4])
    x, rest = batch.positions, batch.inputs()[1:]
    assert torch.autograd.gradcheck(lambda y: model(y, *rest, mode), x.requires_grad_())


def test_training_on_forces_reaches_every_weight(model, batch):
    """Double backward: the loss of the forces has a finite gradient in both parts."""
    _, forces = model.energy_and_forces(*batch.inputs(), differentiable=True)
    model.zero_grad()
    forces.square().mean().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert all(g is not None and g.isfinite().all() for g in gradients.values())
    for part in ("allegro.", "prior."):
        assert any(g.abs().max() > 0 for name, g in gradients.items() if name.startswith(part))
    model.zero_grad()


def bad_geometries():
    """What can befall a chain of ten beads."""
    n = 10
    straight = torch.zeros(n, 3, dtype=torch.float64)
    straight[:, 0] = 3.8 * torch.arange(n)
    coincident = straight.clone()
    coincident[4] = coincident[3]
    folded = straight.clone()
    folded[5:, 0] = 3.8 * (9 - torch.arange(5, n))  # an angle of 0, and pairs that coincide
    return {
        "collinear": straight,
        "coincident": coincident,
        "folded": folded,
        "all parked at one place": torch.full((n, 3), 95.0, dtype=torch.float64),
        "far apart": straight * 1e3,
    }


@pytest.mark.parametrize("prior", ["parametric", "spline"])
@pytest.mark.parametrize("name", bad_geometries())
def test_no_geometry_gives_nan(prior, name):
    """Not in the energy, nor the forces, nor the gradients of the weights through the forces."""
    model = tiny_model(prior)
    batch = Batch.of(model, [10, 6])
    batch.positions[:10] = bad_geometries()[name]
    batch.edges = edges_of(batch.positions, batch.molecule, model.cutoff)
    x = batch.positions.requires_grad_()
    energy, forces = model.energy_and_forces(*batch.inputs(), differentiable=True)
    assert energy.isfinite().all()
    assert forces.isfinite().all()
    (energy.sum() + forces.square().sum()).backward()
    assert x.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    # the other molecule does not notice
    alone = model.energy_and_forces(*Batch.of(model, [6], seed=1).inputs())
    torch.testing.assert_close(energy[1:].detach(), alone[0], atol=1e-10, rtol=1e-12)
    torch.testing.assert_close(forces[10:].detach(), alone[1], atol=1e-10, rtol=1e-12)


@pytest.mark.parametrize("value", [0.0, 95.0, float("nan")])
def test_padding_has_no_energy_and_no_force(model, value):
    """Beads of molecule -1 are not there, whatever their positions hold."""
    batch, plain = Batch.of(model, [6]), Batch.of(model, [6])
    pad = 3
    batch.positions = torch.cat([batch.positions, torch.full((pad, 3), value)])
    batch.types = torch.cat([batch.types, torch.zeros(pad, dtype=int)])
    batch.molecule = torch.cat([batch.molecule, torch.full((pad,), -1)])
    batch.edges = edges_of(batch.positions, batch.molecule, model.cutoff)
    energy, forces = model.energy_and_forces(*batch.inputs())
    expected = model.energy_and_forces(*plain.inputs())
    torch.testing.assert_close((energy, forces[:6]), expected, atol=1e-12, rtol=1e-12)
    assert (forces[6:] == 0).all()


def test_it_is_rebuilt_from_its_architecture(model, batch):
    again = bead_model_of(model.architecture(), torch.float64)
    with torch.no_grad():
        for p in again.parameters():
            p.zero_()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(*batch.inputs()), model(*batch.inputs()))
    assert {name.split(".")[0] for name in model.state_dict()} == {"allegro", "prior"}
    assert again.architecture() == model.architecture()


def test_one_part_alone_is_a_model_too(model, batch):
    x, types, bound, edges, molecule, n = batch.inputs()
    prior = BeadModel(None, model.prior)
    torch.testing.assert_close(
        prior(x, types, bound, None, molecule, n), model(*batch.inputs(), "prior")
    )
    learnt = BeadModel(model.allegro, None)
    torch.testing.assert_close(
        learnt(x, types, None, edges, molecule, n), model(*batch.inputs(), "ml")
    )
    assert prior.cutoff == 0.0
    assert prior.type_names == learnt.type_names == model.type_names
    for one in (prior, learnt):
        assert bead_model_of(one.architecture(), torch.float64).type_names == model.type_names
    with pytest.raises(UsageError, match="mode 'ml' needs a learnt part"):
        prior(*batch.inputs(), "ml")
    with pytest.raises(UsageError, match="mode 'prior' needs a prior"):
        learnt(*batch.inputs(), "prior")
    with pytest.raises(UsageError, match="one of full, prior, ml, found 'both'"):
        model(*batch.inputs(), "both")


def test_an_architecture_that_makes_no_sense_is_refused():
    with pytest.raises(UsageError, match="needs Allegro, a prior, or both"):
        BeadModel(None, None)
    with pytest.raises(DataError, match=r"m\.pt: .*neither Allegro nor a prior"):
        bead_model_of({}, where="m.pt")
    plain = tiny_spec().model_dump(mode="json")
    with pytest.raises(DataError, match=r"m\.pt: .*l_max"):
        bead_model_of({"allegro": {**plain, "l_max": -1}}, where="m.pt")


def test_a_molecule_without_terms_has_no_prior():
    model = BeadModel(None, Prior(PRIORS["parametric"]))
    batch = Batch.of(model, [1, 1])
    energy, forces = model.energy_and_forces(*batch.inputs())
    assert (energy == 0).all()
    assert (forces == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["parametric", "spline"])
def test_a_chain_of_ten_residues_keeps_its_energy(prior):
    """Newton's equations conserve energy: forces and edges are right along a whole trajectory.

    Velocity Verlet of order dt^2: half the time step leaves a quarter of the fluctuation.
    """
    model = tiny_model(prior)
    acceleration = 4.184e-4  # kcal/mol/angstrom/amu in angstrom/fs^2
    mass, kT = 110.0, 0.6
    batch = Batch.of(model, [10])

    def forces(x):
        batch.positions = x
        batch.edges = edges_of(x, batch.molecule, model.cutoff)
        return model.energy_and_forces(*batch.inputs())

    x = batch.positions.clone()
    for _ in range(300):  # down to where the chain is relaxed
        f = forces(x)[1]
        x = x + f * (0.05 / f.norm(dim=-1).max().clamp(min=5.0))

    def fluctuation(dt, steps):
        generator = torch.Generator().manual_seed(0)
        v = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        v *= (kT / mass * acceleration) ** 0.5
        y, total = x.clone(), []
        u, f = forces(y)
        for _ in range(steps):
            v = v + 0.5 * dt * acceleration / mass * f
            y = y + dt * v
            u, f = forces(y)
            v = v + 0.5 * dt * acceleration / mass * f
            total.append(float(u + 0.5 * mass * v.square().sum() / acceleration))
        return torch.tensor(total).std()

    coarse, fine = fluctuation(4.0, 250), fluctuation(2.0, 500)
    assert coarse < 0.02 * 15 * kT
    assert fine < 0.35 * coarse
