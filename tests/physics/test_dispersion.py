"""D3(BJ): laws first, then agreement with dftd3 in energy and gradient, without a cutoff."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
import torch
from dftd3.interface import DispersionModel, RationalDampingParam
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.core.units import BOHR, HARTREE
from mlff_cli.physics.dispersion import D3BJ, MAX_ELEMENT
from mlff_cli.physics.dispersion_parameters import (
    D3Parameters,
    functional_parameters,
    functionals,
)

Molecule = tuple[list[int], np.ndarray]  # atomic numbers (N,), positions (N, 3) in angstrom

WB97M = D3Parameters(s6=1.0, s8=0.3908, a1=0.5660, a2=3.1280)
THREE_BODY = dataclasses.replace(WB97M, s9=1.0)
BOTH = pytest.mark.parametrize("parameters", [WB97M, THREE_BODY], ids=["two-body", "three-body"])
SEED_TABLE = ["b3lyp", "pbe", "pbe0", "wb97x", "wb97m", "tpss", "bp86", "m062x", "b973c"]
NO_CUTOFF = 1e6  # Bohr; dftd3's own defaults are 60, 40 and 40


def random_molecule(rng: np.random.Generator, n_atoms: int, elements: list[int]) -> Molecule:
    """Atoms at random in a box of about 3 cubic angstrom each: many are close, CNs are odd."""
    box = (3.0 * n_atoms) ** (1 / 3)
    return [int(z) for z in rng.choice(elements, n_atoms)], rng.uniform(0, box, (n_atoms, 3))


def ours(d3: D3BJ, molecule: Molecule) -> tuple[float, np.ndarray]:
    """Energy (eV) and gradient (N, 3) (eV/angstrom)."""
    coord = torch.tensor(molecule[1], dtype=torch.float64)[None].requires_grad_()
    energy = d3(coord, torch.tensor([molecule[0]]))
    (gradient,) = torch.autograd.grad(energy.sum(), coord)
    return energy.item(), gradient[0].numpy()


def theirs(parameters: D3Parameters, molecule: Molecule) -> tuple[float, np.ndarray]:
    """Energy (Hartree) and gradient (N, 3) (Hartree/Bohr) by dftd3."""
    model = DispersionModel(np.array(molecule[0]), molecule[1] / BOHR)
    model.set_realspace_cutoff(NO_CUTOFF, NO_CUTOFF, NO_CUTOFF)
    p = parameters
    damping = RationalDampingParam(s6=p.s6, s8=p.s8, s9=p.s9, a1=p.a1, a2=p.a2)
    result = model.get_dispersion(damping, grad=True)
    return float(result["energy"]), result["gradient"]


def assert_agrees(d3: D3BJ, parameters: D3Parameters, molecule: Molecule, bound: float) -> None:
    energy, gradient = ours(d3, molecule)
    expected_energy, expected_gradient = theirs(parameters, molecule)
    assert abs(energy / HARTREE - expected_energy) < bound
    assert np.abs(gradient * BOHR / HARTREE - expected_gradient).max() < bound


def batch(molecules: list[Molecule], fill: float = 0.0) -> tuple[Tensor, Tensor]:
    width = max(len(numbers) for numbers, _ in molecules)
    coord = torch.full((len(molecules), width, 3), fill, dtype=torch.float64)
    numbers = torch.zeros(len(molecules), width, dtype=torch.int64)
    for b, (z, xyz) in enumerate(molecules):
        coord[b, : len(z)] = torch.tensor(xyz)
        numbers[b, : len(z)] = torch.tensor(z)
    return coord, numbers


def shell(centre: int, ligand: int, distance: float, directions: list[list[float]]) -> Molecule:
    unit = np.array(directions, dtype=float)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return [centre] + [ligand] * len(unit), np.vstack([np.zeros(3), distance * unit])


OCTAHEDRON = [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]]
TETRAHEDRON = [[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]
BIPYRAMID = [[0, 0, 1], [0, 0, -1], [1, 0, 0], [-0.5, 3**0.5 / 2, 0], [-0.5, -(3**0.5) / 2, 0]]
NAMED: dict[str, Molecule] = {
    "Ar2": ([18, 18], np.array([[0.0, 0, 0], [0, 0, 3.8]])),
    "lone H": ([1], np.zeros((1, 3))),
    "H2": ([1, 1], np.array([[0.0, 0, 0], [0, 0, 0.74]])),
    "stretched HCl": ([1, 17], np.array([[0.0, 0, 0], [0, 0, 6.0]])),
    "Ni(C)4": shell(28, 6, 1.84, TETRAHEDRON),
    "Ni planar": shell(28, 17, 2.17, OCTAHEDRON[:4]),
    "Ni(O)6": shell(28, 8, 2.05, OCTAHEDRON),
    "Pd planar": shell(46, 17, 2.31, OCTAHEDRON[:4]),
    "Pd(F)6": shell(46, 9, 1.90, OCTAHEDRON),
    "PF5": shell(15, 9, 1.55, BIPYRAMID),
    "SF6": shell(16, 9, 1.56, OCTAHEDRON),
    "SF4-like": shell(16, 9, 1.60, BIPYRAMID[:4]),
    "crushed": shell(29, 6, 0.9, OCTAHEDRON + TETRAHEDRON),
}


@pytest.fixture(scope="module")
def rng() -> np.random.Generator:
    return np.random.default_rng(20250)


# ---------------------------------------------------------------- laws


@BOTH
@given(seed=st.integers(0, 2**32 - 1), n_atoms=st.integers(1, 9))
@settings(max_examples=15, deadline=None)
def test_motions_and_order_leave_the_energy(
    parameters: D3Parameters, seed: int, n_atoms: int
) -> None:
    rng = np.random.default_rng(seed)
    d3 = D3BJ(parameters, species=[1, 6, 8, 26])
    numbers, xyz = random_molecule(rng, n_atoms, [1, 6, 8, 26])
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))  # mirrored for half of the seeds
    order = rng.permutation(n_atoms)
    energy, gradient = ours(d3, (numbers, xyz))
    moved = (xyz @ rotation.T + rng.normal(size=3) * 10)[order]
    energy_moved, gradient_moved = ours(d3, ([numbers[i] for i in order], moved))
    assert energy_moved == pytest.approx(energy, rel=1e-11, abs=1e-13)
    np.testing.assert_allclose(gradient_moved, (gradient @ rotation.T)[order], atol=1e-10)


@BOTH
def test_gradient_is_the_finite_difference(
    parameters: D3Parameters, rng: np.random.Generator
) -> None:
    coord, numbers = batch([random_molecule(rng, n, [1, 6, 7, 15, 28]) for n in (3, 5)])
    d3 = D3BJ(parameters)
    assert torch.autograd.gradcheck(
        lambda x: d3(x, numbers), coord.requires_grad_(), eps=1e-5, atol=1e-7, rtol=1e-6
    )


@BOTH
@pytest.mark.parametrize("fill", [0.0, 1e3, float("nan"), float("inf")])
def test_padding_changes_nothing(
    parameters: D3Parameters, fill: float, rng: np.random.Generator
) -> None:
    molecules = [random_molecule(rng, n, [1, 6, 8]) for n in (1, 2, 5, 9)]
    d3 = D3BJ(parameters)
    coord, numbers = batch(molecules, fill)
    coord.requires_grad_()
    energy = d3(coord, numbers)
    (gradient,) = torch.autograd.grad(energy.sum(), coord)
    assert (gradient[numbers == 0] == 0).all()
    for b, molecule in enumerate(molecules):
        alone, gradient_alone = ours(d3, molecule)
        assert energy[b].item() == pytest.approx(alone, rel=1e-13, abs=1e-15)
        n_atoms = len(molecule[0])
        np.testing.assert_allclose(gradient[b, :n_atoms].numpy(), gradient_alone, atol=1e-13)


def test_padding_may_stand_between_atoms() -> None:
    numbers, xyz = NAMED["SF6"]
    wide = [*numbers[:3], 0, *numbers[3:]]
    energy, _ = ours(D3BJ(THREE_BODY), (wide, np.insert(xyz, 3, 0.0, axis=0)))
    assert energy == pytest.approx(ours(D3BJ(THREE_BODY), (numbers, xyz))[0], rel=1e-13)


@BOTH
def test_far_fragments_add_up(parameters: D3Parameters, rng: np.random.Generator) -> None:
    d3 = D3BJ(parameters)
    a, b = (random_molecule(rng, n, [1, 6, 8]) for n in (4, 6))
    together = (a[0] + b[0], np.vstack([a[1], b[1] + [1e4, 0, 0]]))
    # Not closer: without a cutoff a far atom still adds 1.1e-7 to a coordination number.
    assert ours(d3, together)[0] == pytest.approx(ours(d3, a)[0] + ours(d3, b)[0], rel=1e-6)
    assert_agrees(d3, parameters, together, bound=1e-10)


def test_two_body_energy_lowers_and_decays_as_r6() -> None:
    d3 = D3BJ(WB97M, species=[18])
    near, far = (ours(d3, ([18, 18], np.array([[0.0, 0, 0], [0, 0, r]])))[0] for r in (50.0, 100.0))
    assert near < far < 0
    assert near / far == pytest.approx(64.0, rel=2e-2)


@BOTH
def test_lone_atoms_and_empty_molecules_have_no_dispersion(parameters: D3Parameters) -> None:
    coord = torch.zeros(2, 1, 3, dtype=torch.float64, requires_grad=True)
    energy = D3BJ(parameters)(coord, torch.tensor([[1], [0]]))
    (gradient,) = torch.autograd.grad(energy.sum(), coord)
    assert (energy == 0).all()
    assert (gradient == 0).all()


@BOTH
def test_atoms_in_one_place_give_finite_numbers(parameters: D3Parameters) -> None:
    molecule = ([6, 6, 1], np.array([[0.0] * 3, [0] * 3, [0, 0, 1]]))
    energy, gradient = ours(D3BJ(parameters), molecule)
    assert np.isfinite(energy)
    assert np.isfinite(gradient).all()


def test_precision_of_the_model_around_it_does_not_matter(rng: np.random.Generator) -> None:
    molecule = random_molecule(rng, 6, [1, 6, 8])
    exact = ours(D3BJ(WB97M), molecule)[0]
    whole = torch.nn.Sequential(D3BJ(WB97M)).float()
    assert ours(whole[0], molecule)[0] == exact
    coord, numbers = batch([molecule])
    assert whole[0](coord.float(), numbers).dtype == torch.float64


# ---------------------------------------------------------------- scripting


@BOTH
def test_scripted_and_reloaded_equals_eager(
    parameters: D3Parameters, rng: np.random.Generator
) -> None:
    molecules = [random_molecule(rng, n, [1, 6, 8, 46]) for n in (1, 3, 8)]
    coord, numbers = batch(molecules)
    eager = D3BJ(parameters)
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(eager), file)
    file.seek(0)
    scripted = torch.jit.load(file)
    for _ in range(3):  # the interpreter specialises after the first calls
        results = []
        for d3 in (eager, scripted):
            x = coord.clone().requires_grad_()
            energy = d3(x, numbers)
            results.append((energy.detach(), torch.autograd.grad(energy.sum(), x)[0]))
        torch.testing.assert_close(results[1], results[0], rtol=1e-13, atol=1e-14)


def test_chosen_species_are_smaller_and_equal(rng: np.random.Generator) -> None:
    molecule = random_molecule(rng, 8, [1, 6, 7, 8])
    full, chosen = D3BJ(THREE_BODY), D3BJ(THREE_BODY, species=[8, 1, 7, 6, 6])
    size = {
        d3: sum(table.numel() * table.element_size() for table in d3.buffers())
        for d3 in (full, chosen)
    }
    assert size[full] < 1_000_000
    assert size[chosen] < 5_000
    assert ours(chosen, molecule)[0] == pytest.approx(ours(full, molecule)[0], rel=1e-14)


@pytest.mark.parametrize("z", [-1, 95, 118, 119, 206])
def test_elements_beyond_d3_are_refused(z: int) -> None:
    d3 = D3BJ(WB97M)
    coord, numbers = torch.zeros(1, 2, 3), torch.tensor([[1, z]])
    with pytest.raises(DataError, match=f"1 to 94, found atomic number {z}"):
        d3(coord, numbers)
    with pytest.raises(torch.jit.Error, match=f"element {z}"):
        torch.jit.script(d3)(coord, numbers)


def test_an_element_that_was_not_kept_is_refused() -> None:
    with pytest.raises(DataError, match=r"made for H, C, found O \(8\)"):
        D3BJ(WB97M, species=[1, 6])(torch.zeros(1, 1, 3), torch.tensor([[8]]))


@pytest.mark.parametrize("species", [[], [0, 1], [1, 95]])
def test_species_are_elements_of_d3(species: list[int]) -> None:
    with pytest.raises(UsageError, match="elements 1 to 94"):
        D3BJ(WB97M, species=species)


# ---------------------------------------------------------------- dftd3


def test_argon_dimer_has_its_published_energy() -> None:
    energy, _ = ours(D3BJ(WB97M), NAMED["Ar2"])
    assert energy / HARTREE == pytest.approx(-0.000391014801, abs=1e-12)


@BOTH
@pytest.mark.parametrize("name", NAMED)
def test_named_molecules_agree_with_dftd3(parameters: D3Parameters, name: str) -> None:
    assert_agrees(D3BJ(parameters), parameters, NAMED[name], bound=1e-10)


@BOTH
def test_random_molecules_agree_with_dftd3(parameters: D3Parameters) -> None:
    rng = np.random.default_rng(94)
    d3 = D3BJ(parameters)
    seen: set[int] = set()
    for _ in range(200):
        molecule = random_molecule(rng, int(rng.integers(1, 16)), list(range(1, MAX_ELEMENT + 1)))
        seen.update(molecule[0])
        assert_agrees(d3, parameters, molecule, bound=1e-10)
    assert seen == set(range(1, MAX_ELEMENT + 1))


@pytest.mark.parametrize("s9", [0.0, 1.0])
@pytest.mark.parametrize("name", SEED_TABLE)
def test_functionals_of_the_seed_agree_with_dftd3(name: str, s9: float) -> None:
    parameters = dataclasses.replace(functional_parameters(name), s9=s9)
    d3 = D3BJ(parameters)
    for molecule in NAMED.values():
        assert_agrees(d3, parameters, molecule, bound=1e-10)


def test_every_functional_of_the_table_agrees_with_dftd3(rng: np.random.Generator) -> None:
    molecule = random_molecule(rng, 10, [1, 6, 7, 8, 16, 35])
    for parameters in functionals().values():
        assert_agrees(D3BJ(parameters, species=molecule[0]), parameters, molecule, bound=1e-9)


def test_a_large_cluster_keeps_its_tail() -> None:
    """dftd3's default cutoffs (60 and 40 Bohr) would drop pairs of this chain."""
    numbers, xyz = [6, 18] * 30, np.array([[1.7 * i, i % 3, 0.0] for i in range(60)])
    assert_agrees(D3BJ(THREE_BODY), THREE_BODY, (numbers, xyz), bound=1e-10)
