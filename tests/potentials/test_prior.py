"""The prior's laws: forces are gradients, invariances, batches, and no NaN anywhere."""

import copy
import dataclasses
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.interpolate import CubicSpline

from mlff_cli.core.errors import DataError
from mlff_cli.data.beads.prior_file import Entry, PriorFile, Term
from mlff_cli.data.beads.prior_forms import Harmonic, Spline, Wall
from mlff_cli.physics.terms import APART, Terms
from mlff_cli.potentials.prior import BoundTerms, Prior
from tests.potentials.prior_cases import (
    PARAMETRIC,
    PRIORS,
    SPECIES,
    chain,
    chain_terms,
    chain_types,
)

N = 12
few = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def bound_prior(name, n=N, seed=0):
    prior = Prior(PRIORS[name])
    return prior, prior.bind(chain_terms(n), chain_types(n, seed))


@pytest.fixture(params=PRIORS)
def case(request):
    return bound_prior(request.param)


def rotation(seed):
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    q[:, 0] *= np.linalg.det(q)
    return torch.from_numpy(q)


def test_the_energy_is_the_sum_of_its_terms_written_out():
    """Each term by itself, from the formulas, with plain numbers."""
    x, types, terms = chain(N), chain_types(N), chain_terms(N)
    file = PARAMETRIC
    expected = dict.fromkeys(file.terms, 0.0)
    sigmoid = lambda s: s**3 * (10.0 - 15.0 * s + 6.0 * s * s)  # noqa: E731

    def length(i, j):
        return math.dist(x[i].tolist(), x[j].tolist())

    def entry(name, *beads):
        term = file.terms[name]
        return term.entries[term.find([types[i] for i in beads])]

    def bend(i, j, k):
        u, v = x[i] - x[j], x[k] - x[j]
        return math.acos((u @ v / (u.norm() * v.norm())).item())

    def spring(wall, q):
        if wall is None:
            return 0.0
        return 0.5 * wall.k * (max(0.0, wall.low - q) ** 2 + max(0.0, q - wall.high) ** 2)

    for i, j in terms.bonds.tolist():
        e, r = entry("bond", i, j), length(i, j)
        expected["bond"] += 0.5 * e.parameters.k * (r - e.parameters.r0) ** 2 + spring(e.wall, r)
    for beads in terms.angles.tolist():
        e, theta = entry("angle", *beads), bend(*beads)
        series = zip(e.parameters.a, e.parameters.b, strict=True)
        expected["angle"] += spring(e.wall, theta) + sum(
            a * math.cos(n * theta) + b * math.sin(n * theta) for n, (a, b) in enumerate(series, 1)
        )
    for i, j, k, m in terms.dihedrals.tolist():
        b1, b2, b3 = (q - p for p, q in zip(x[[i, j, k]], x[[j, k, m]], strict=True))
        n1, n2 = torch.linalg.cross(b1, b2), torch.linalg.cross(b2, b3)
        phi = math.atan2((b2.norm() * (b1 @ n2)).item(), (n1 @ n2).item())
        fade = math.prod(
            sigmoid(min(1.0, math.sin(bend(*b)) / file.damping)) for b in ((i, j, k), (j, k, m))
        )
        e = entry("dihedral", i, j, k, m).parameters
        series = enumerate(zip(e.k, e.gamma, strict=True), 1)
        expected["dihedral"] += fade * sum(f * (1 + math.cos(n * phi - g)) for n, (f, g) in series)
    for (i, j), s in zip(terms.pairs.tolist(), terms.separation.tolist(), strict=True):
        name, r = "excluded_volume" if s <= 5 else "repulsion", length(i, j)
        e = entry(name, i, j).parameters
        if r < e.cutoff:
            tail = sigmoid(min(1.0, (e.cutoff - r) / (e.cutoff - e.onset)))
            inside = 1.0 if r > e.core else 1.0 + 4.0 * (1.0 - r / e.core)
            expected[name] += e.epsilon * (e.sigma / max(r, e.core)) ** 4 * inside * tail
    prior = Prior(file)
    found = prior.energies(x, prior.bind(terms, types))
    for name, value in expected.items():
        assert value != 0.0
        assert found[name].item() == pytest.approx(file.terms[name].weight * value, rel=1e-10)


def test_forces_are_minus_the_gradient(case):
    prior, bound = case
    x = chain(N, frames=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda r: prior(r, bound), x)
    _, forces = prior.energy_and_forces(x, bound)
    step = 1e-5
    for bead in range(N):
        for axis in range(3):
            e = torch.zeros_like(x)
            e[:, bead, axis] = step
            slope = (prior(x + e, bound) - prior(x - e, bound)) / (2.0 * step)
            assert torch.allclose(forces[:, bead, axis], -slope, atol=1e-6, rtol=1e-6)


@few
@given(st.integers(0, 10**6))
def test_translation_and_rotation_change_nothing(seed):
    for name in PRIORS:
        prior, bound = bound_prior(name)
        x, q = chain(N, seed), rotation(seed)
        shift = 9.0 * torch.randn(3, generator=torch.Generator().manual_seed(seed)).double()
        e, f = prior.energy_and_forces(x, bound)
        e_turned, f_turned = prior.energy_and_forces(x @ q.T + shift, bound)
        assert e_turned.item() == pytest.approx(e.item(), rel=1e-9, abs=1e-9)
        assert torch.allclose(f_turned, f @ q.T, atol=1e-7, rtol=1e-7)


@few
@given(st.integers(0, 10**6))
def test_no_net_force_and_no_net_torque(seed):
    for name in PRIORS:
        prior, bound = bound_prior(name)
        x = chain(N, seed, frames=3)
        _, f = prior.energy_and_forces(x, bound)
        scale = f.abs().max().item()
        assert f.sum(1).abs().max().item() < 1e-10 * scale
        torque = torch.linalg.cross(x, f).sum(1)
        assert torque.abs().max().item() < 1e-10 * scale * x.abs().max().item()


@few
@given(st.integers(0, 10**6))
def test_a_chain_read_backwards_is_the_same(seed):
    for name, file in PRIORS.items():
        prior = Prior(file)
        types, terms = chain_types(N, seed), chain_terms(N)
        e, f = prior.energy_and_forces(chain(N, seed), prior.bind(terms, types))
        back, f_back = prior.energy_and_forces(
            chain(N, seed).flip(0), prior.bind(terms, types[::-1])
        )
        assert back.item() == pytest.approx(e.item(), rel=1e-10), name
        assert torch.allclose(f_back.flip(0), f, atol=1e-9, rtol=1e-9)


def test_the_order_of_terms_does_not_matter(case):
    prior, bound = case
    terms, mix = chain_terms(N), np.random.default_rng(1)
    order = {n: mix.permutation(len(getattr(terms, n))) for n in ("bonds", "angles", "dihedrals")}
    pairs = mix.permutation(len(terms.pairs))
    mixed = Terms(
        N,
        **{n: getattr(terms, n)[o] for n, o in order.items()},
        pairs=terms.pairs[pairs],
        separation=terms.separation[pairs],
    )
    x = chain(N)
    again = prior(x, prior.bind(mixed, chain_types(N))).item()
    assert again == pytest.approx(prior(x, bound).item(), rel=1e-13)


def test_frames_of_a_batch_are_each_by_itself(case):
    prior, bound = case
    x = chain(N, frames=6).reshape(2, 3, N, 3)
    energy, forces = prior.energy_and_forces(x, bound)
    assert energy.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            e, f = prior.energy_and_forces(x[i, j], bound)
            assert energy[i, j].item() == pytest.approx(e.item(), rel=1e-12)
            assert torch.allclose(forces[i, j], f, atol=1e-12)


SIZES = [12, 1, 7, 3, 2, 9]


@pytest.mark.parametrize("name", PRIORS)
def test_ragged_padded_and_masked_batches_agree_with_single_molecules(name):
    prior = Prior(PRIORS[name])
    single = [prior.bind(chain_terms(n), chain_types(n, n)) for n in SIZES]
    x = [chain(n, n) for n in SIZES]
    alone = [prior.energy_and_forces(r, b) for r, b in zip(x, single, strict=True)]
    expected = torch.stack([e for e, _ in alone])

    ragged, forces = prior.energy_and_forces(torch.cat(x), BoundTerms.join(single))
    assert torch.allclose(ragged, expected, rtol=1e-12)
    assert torch.allclose(forces, torch.cat([f for _, f in alone]), atol=1e-11)

    padded = torch.full((len(SIZES), N, 3), math.nan, dtype=torch.float64)
    for k, r in enumerate(x):
        padded[k, : len(r)] = r
    flat = BoundTerms.join(single, stride=N)
    energy, forces = prior.energy_and_forces(padded.reshape(-1, 3), flat)
    assert torch.allclose(energy, expected, rtol=1e-12)
    forces = forces.reshape(padded.shape)
    for k, (_, f) in enumerate(alone):
        assert torch.allclose(forces[k, : len(f)], f, atol=1e-11)
        assert not forces[k, len(f) :].any()


@few
@given(
    n=st.integers(0, N),
    parked=st.sampled_from([0.0, 95.0, math.nan, math.inf]),
    name=st.sampled_from(list(PRIORS)),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_masked_beads_leave_the_shorter_chain(n, parked, name, dtype):
    """Of a chain of N beads the first n are there; the others are parked anywhere."""
    types = chain_types(N)
    prior = Prior(PRIORS[name])
    x = chain(N).to(dtype)
    x[n:] = parked
    mask = (torch.arange(N) < n).to(dtype)
    energy, forces = prior.energy_and_forces(x, prior.bind(chain_terms(N), types), mask)
    e, f = prior.energy_and_forces(x[:n], prior.bind(chain_terms(n), types[:n]))
    assert energy.item() == pytest.approx(e.item(), rel=1e-10)
    assert torch.allclose(forces[:n], f, rtol=1e-5, atol=1e-4)
    assert not forces[n:].any()


def test_a_mask_may_differ_from_frame_to_frame(case):
    prior, bound = case
    x, mask = chain(N, frames=3), torch.ones(3, N)
    mask[1, 4:] = 0.0
    mask[2] = 0.0
    energy, forces = prior.energy_and_forces(x, bound, mask)
    e, f = prior.energy_and_forces(x[:2], bound, mask[:2])
    assert energy[0].item() == pytest.approx(prior(x[0], bound).item(), rel=1e-12)
    assert torch.equal(energy[:2], e)
    assert torch.equal(forces[:2], f)
    assert energy[2].item() == 0.0
    assert not forces[2].any()


line = torch.arange(N, dtype=torch.float64)[:, None]
EDGES = {
    "straight": line * torch.tensor([0.0, 0.0, 3.8], dtype=torch.float64),
    "all in one place": torch.zeros(N, 3, dtype=torch.float64),
    "folded onto itself": (line % 2) * torch.tensor([3.8, 0.0, 0.0], dtype=torch.float64),
    "parked far away": torch.full((N, 3), 9.5e4, dtype=torch.float64),
    "stretched": line * torch.tensor([1e5, 2e5, -1e5], dtype=torch.float64),
    "squeezed": line * torch.tensor([1e-4, 0.0, 1e-5], dtype=torch.float64),
    "two overlap": chain(N).index_copy(0, torch.tensor([8]), chain(N)[2:3]),
    "neighbours overlap": chain(N).index_copy(0, torch.tensor([5]), chain(N)[4:5]),
}


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_energy_forces_and_their_gradients_are_finite(case, edge, dtype):
    prior, bound = case
    prior = prior.to(dtype)
    x = EDGES[edge].to(dtype).requires_grad_()
    energy, forces = prior.energy_and_forces(x, bound, differentiable=True)
    assert energy.dtype == forces.dtype == dtype
    assert energy.isfinite()
    assert forces.isfinite().all()
    found = torch.autograd.grad(
        energy + forces.square().mean(), [x, *prior.parameters()], allow_unused=True
    )
    assert all(g is None or g.isfinite().all() for g in found)


coordinate = st.sampled_from([0.0, 0.0, 3.8, -3.8, 7.6, 1e-7, 1e-3, 40.0])


@few
@given(
    st.lists(st.tuples(coordinate, coordinate, coordinate), min_size=8, max_size=8),
    st.sampled_from(list(PRIORS)),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_beads_on_a_lattice_collide_and_align_without_nan(points, name, dtype):
    prior, bound = bound_prior(name, 8)
    x = torch.tensor(points, dtype=dtype)
    energy, forces = prior.to(dtype).energy_and_forces(x, bound)
    assert energy.isfinite()
    assert forces.isfinite().all()


@few
@given(st.floats(1e-6, 0.6), st.integers(0, 10**6))
def test_the_energy_goes_on_smoothly_through_a_straight_chain(bend, seed):
    """Three beads pass through a line: both sides and the line itself agree in energy."""
    for name in PRIORS:
        prior, bound = bound_prior(name, 4)
        x = chain(4, seed)
        axis = (x[1] - x[0]) / (x[1] - x[0]).norm()
        side = torch.linalg.cross(axis, x[3] - x[0])
        side = side / side.norm()

        def at(s, x=x, axis=axis, side=side):
            y = x.clone()
            y[2] = y[1] + 3.8 * (math.cos(s) * axis + math.sin(s) * side)
            return y

        step = 1e-4 * bend
        energies = [prior(at(s), bound).item() for s in (-step, 0.0, step)]
        assert energies[0] == pytest.approx(energies[1], abs=0.2 * step * 1e3)
        assert energies[2] == pytest.approx(energies[1], abs=0.2 * step * 1e3)


def test_the_angle_wall_pushes_a_straight_chain_apart():
    prior = Prior(PARAMETRIC)
    bound = prior.bind(chain_terms(3), ["ALA"] * 3)
    nearly = torch.tensor([[-3.8, 0.0, 0.0], [0.0, 0.01, 0.0], [3.8, 0.0, 0.0]]).double()
    _, forces = prior.energy_and_forces(nearly, bound)
    assert forces[1, 1].item() > 5.0


def test_float32_is_float64_to_its_precision(case):
    prior, bound = case
    x = chain(N, frames=4)
    e64, f64 = prior.energy_and_forces(x, bound)
    e32, f32 = prior.to(torch.float32).energy_and_forces(x.float(), bound)
    assert e32.dtype == torch.float32
    assert torch.allclose(e32.double(), e64, rtol=1e-4, atol=1e-3)
    assert torch.allclose(f32.double(), f64, rtol=1e-3, atol=5e-3)


def test_float32_positions_get_float32_forces_of_a_float64_energy(case):
    prior, bound = case
    x = chain(N).float()
    energy, forces = prior.energy_and_forces(x, bound)
    assert energy.dtype == torch.float64
    assert forces.dtype == torch.float32
    assert torch.allclose(forces, prior.energy_and_forces(x.double(), bound)[1].float())


def test_weights_scale_terms():
    x, types = chain(N), chain_types(N)
    terms = {n: dataclasses.replace(t, weight=0.0) for n, t in PARAMETRIC.terms.items()}
    nothing = Prior(dataclasses.replace(PARAMETRIC, terms=terms))
    energy, forces = nothing.energy_and_forces(x, nothing.bind(chain_terms(N), types))
    assert energy.item() == 0.0
    assert not forces.any()


def test_gradients_by_the_parameters(case):
    """Of energies and of forces, as training needs them, against differences."""
    prior, bound = case
    x = chain(N)

    def loss():
        energy, forces = prior.energy_and_forces(x, bound, differentiable=True)
        return energy + forces.square().sum() * 1e-3

    names = [n for n, _ in prior.named_parameters()]
    gradients = torch.autograd.grad(loss(), list(prior.parameters()), allow_unused=True)
    assert any(g is not None and g.any() for g in gradients)
    for name, p, g in zip(names, prior.parameters(), gradients, strict=True):
        for place in np.ndindex(p.shape):
            with torch.no_grad():
                value, step = p[place].item(), 1e-5
                p[place] = value + step
                above = loss().item()
                p[place] = value - step
                below = loss().item()
                p[place] = value
            slope = 0.0 if g is None else g[place].item()
            assert (above - below) / (2 * step) == pytest.approx(slope, rel=1e-4, abs=1e-4), name


def test_force_matching_finds_the_parameters_again():
    """L-BFGS from other parameters, on forces that the prior made."""
    prior, bound = bound_prior("parametric")
    x = chain(N, frames=20)
    _, target = prior.energy_and_forces(x, bound)
    bond = PARAMETRIC.terms["bond"]
    moved = tuple(
        dataclasses.replace(e, parameters=Harmonic(0.8 * e.parameters.k, e.parameters.r0 + 0.05))
        for e in bond.entries
    )
    start = Prior(
        dataclasses.replace(
            PARAMETRIC,
            terms={**PARAMETRIC.terms, "bond": dataclasses.replace(bond, entries=moved)},
        )
    )
    train = list(start.tables["bond_harmonic"].parameters())
    optimizer = torch.optim.LBFGS(train, max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        _, forces = start.energy_and_forces(x, bound, differentiable=True)
        loss = (forces - target).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    for found, true in zip(start.updated().terms["bond"].entries, bond.entries, strict=True):
        assert found.parameters.k == pytest.approx(true.parameters.k, rel=1e-3)
        assert found.parameters.r0 == pytest.approx(true.parameters.r0, abs=1e-4)
        assert found.wall == true.wall


def test_a_spline_with_slopes_ends_as_steeply_as_its_file_says():
    low, high, slopes = 3.6, 4.0, (-90.0, 80.0)
    spline = Spline(low, high, (4.0, 0.0, 5.0), slopes=slopes)
    entry = Entry(("ALA", "GLY"), spline)
    prior = Prior(PriorFile(species=SPECIES, terms={"bond": Term(entries=(entry,))}))
    bound = prior.bind(chain_terms(2), ["GLY", "ALA"])
    for r, energy, slope in ((low - 0.5, 4.0 + 45.0, -90.0), (high + 0.5, 5.0 + 40.0, 80.0)):
        x = torch.tensor([[0.0, 0.0, 0.0], [r, 0.0, 0.0]], dtype=torch.float64)
        e, f = prior.energy_and_forces(x, bound)
        assert e.item() == pytest.approx(energy, rel=1e-12)
        assert f[1, 0].item() == pytest.approx(-slope, rel=1e-12)
    x = torch.tensor([[0.0, 0.0, 0.0], [3.71, 0.0, 0.0]], dtype=torch.float64)
    reference = CubicSpline(spline.knots, spline.values, bc_type=((1, slopes[0]), (1, slopes[1])))
    assert prior(x, bound).item() == pytest.approx(float(reference(3.71)), rel=1e-12)


@pytest.mark.parametrize("name", PRIORS)
def test_untrained_parameters_are_the_files(name):
    assert Prior(PRIORS[name]).updated() == PRIORS[name]


def test_a_state_dict_carries_the_parameters():
    one, bound = bound_prior("parametric")
    with torch.no_grad():
        for p in one.parameters():
            p.mul_(1.01)
    other = Prior(PARAMETRIC)
    other.load_state_dict(one.state_dict())
    assert other(chain(N), bound).item() == one(chain(N), bound).item()
    assert other.updated() == one.updated() != PARAMETRIC


def test_copies_are_alike_and_apart(case):
    prior, bound = case
    for other in (copy.deepcopy(prior), pickle.loads(pickle.dumps(prior))):
        before = prior(chain(N), bound).item()
        assert other(chain(N), bound).item() == before
        with torch.no_grad():
            for p in other.parameters():
                p.add_(0.1)
        assert other(chain(N), bound).item() != before
        assert prior(chain(N), bound).item() == before


def test_pairs_of_other_chains_repel():
    prior = Prior(PARAMETRIC)
    apart = Terms(2, pairs=[[0, 1]], separation=[APART])
    x = torch.tensor([[0.0, 0.0, 0.0], [5.0, 0.0, 0.0]]).double()
    energies = prior.energies(x, prior.bind(apart, ["ALA", "ALA"]))
    assert energies["repulsion"].item() == pytest.approx(0.8 * 0.9)
    assert energies["excluded_volume"].item() == 0.0


def test_types_that_are_not_among_the_species_are_refused():
    types = chain_types(N)
    types[7] = "unheard-of"
    with pytest.raises(DataError, match=r"ALA, GLY, TRP, found unheard-of \(bead 7\)") as caught:
        Prior(PARAMETRIC).bind(chain_terms(N), types)
    assert "`species`" in caught.value.remedy


def test_species_without_entries_take_the_pooled_ones():
    prior, x = Prior(dataclasses.replace(PARAMETRIC, species=(*SPECIES, "new"))), chain(N)
    terms = chain_terms(N)
    unknown = prior(x, prior.bind(terms, ["new"] * N)).item()
    pooled = {
        name: dataclasses.replace(t, entries=t.entries[:1]) for name, t in PARAMETRIC.terms.items()
    }
    other = Prior(dataclasses.replace(PARAMETRIC, terms=pooled))
    assert unknown == other(x, other.bind(terms, chain_types(N))).item()


def test_a_term_without_an_entry_is_refused():
    entry = Entry(("ALA", "ALA"), Harmonic(1.0, 3.8), Wall(1.0, 3.0))
    prior = Prior(PriorFile(species=SPECIES, terms={"bond": Term(entries=(entry,))}))
    with pytest.raises(DataError, match=r"no bond for ALA-GLY \(beads \[1, 2\]\)"):
        prior.bind(chain_terms(3), ["ALA", "ALA", "GLY"])
    with pytest.raises(DataError, match="3 beads need as many types, found 2"):
        prior.bind(chain_terms(3), ["ALA", "ALA"])


def test_a_prior_of_nothing_has_no_energy():
    prior = Prior(PriorFile(species=SPECIES, terms={}))
    energy, forces = prior.energy_and_forces(chain(4), prior.bind(chain_terms(4), ["ALA"] * 4))
    assert energy.item() == 0.0
    assert not forces.any()
