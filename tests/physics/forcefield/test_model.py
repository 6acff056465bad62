"""The batched force field: OpenMM's energies and gradients, laws, and what it refuses."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
import torch
from torch import Tensor

from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.physics.forcefield import ForceField
from mlff_cli.physics.forcefield.pairs import CORE
from tests.physics.forcefield.molecules import (
    FIELDS,
    OBC2,
    molecule,
    openmm_energies,
    relaxed,
    shaken,
)

CHIGNOLIN = "GYDPETGTWG"


@pytest.fixture(scope="module")
def dipeptide() -> tuple[openmm.System, np.ndarray]:
    made = molecule()
    return made.system, relaxed(made)


def _tensor(x: np.ndarray) -> Tensor:
    return torch.as_tensor(x, dtype=torch.float64)


def _agrees(system: openmm.System, x: np.ndarray, tolerance: float = 1e-9) -> None:
    field = ForceField.from_system(system)
    energy, gradient = field.energy_and_gradient(_tensor(x))
    expected, forces = openmm_energies(system, x)
    np.testing.assert_allclose(energy.numpy(), expected, rtol=tolerance)
    for g, f in zip(gradient.numpy(), forces, strict=True):
        np.testing.assert_allclose(-g, f, atol=tolerance * np.abs(f).max())


@pytest.mark.parametrize("name", FIELDS)
def test_dipeptide_has_the_energy_of_openmm(name: str) -> None:
    made = molecule(forcefield=FIELDS[name])
    _agrees(made.system, shaken(relaxed(made), (0.0, 0.003, 0.01, 0.03, 0.1)))


@pytest.mark.parametrize("name", ["obc2", "gbn2", "vacuum"])
def test_other_peptides_have_the_energy_of_openmm(name: str) -> None:
    for peptide in ("AA", "ACE-PRO-SER-NME"):
        made = molecule(peptide, FIELDS[name])
        _agrees(made.system, shaken(relaxed(made), (0.0, 0.01, 0.03)))


@pytest.mark.parametrize("name", ["obc2", "gbn2"])
def test_chignolin_has_the_energy_of_openmm(name: str) -> None:
    made = molecule(CHIGNOLIN, FIELDS[name])
    assert made.system.getNumParticles() > 130
    _agrees(made.system, shaken(relaxed(made, 10), (0.0, 0.01)))


def test_without_exceptions_every_pair_counts(dipeptide: tuple[openmm.System, np.ndarray]) -> None:
    system, x = dipeptide
    copy = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
    kinds = [type(force).__name__ for force in copy.getForces()]
    old = copy.getForce(kinds.index("NonbondedForce"))
    bare = openmm.NonbondedForce()
    for i in range(old.getNumParticles()):
        bare.addParticle(*old.getParticleParameters(i))
    copy.removeForce(kinds.index("NonbondedForce"))
    copy.addForce(bare)
    _agrees(copy, shaken(x, (0.0, 0.01)))
    given = [
        ForceField.from_system(s).energy_and_gradient(_tensor(x[None]))[0] for s in (system, copy)
    ]
    assert abs(given[0] - given[1]) > 1e3


def test_of_rigid_hydrogens_only_what_openmm_keeps() -> None:
    made = molecule(constraints="hbonds")
    assert made.system.getNumConstraints()
    _agrees(made.system, shaken(relaxed(made), (0.0, 0.01)))


def test_gradient_is_that_of_the_energy(dipeptide: tuple[openmm.System, np.ndarray]) -> None:
    field = ForceField.from_system(dipeptide[0])
    x = _tensor(shaken(dipeptide[1], (0.01, 0.05))).requires_grad_()
    assert torch.autograd.gradcheck(field, (x,), eps=1e-6, atol=1e-2, rtol=1e-6)
    field(x).sum().backward()
    np.testing.assert_array_equal(x.grad, field.energy_and_gradient(x)[1])


def test_energy_knows_no_frame(dipeptide: tuple[openmm.System, np.ndarray]) -> None:
    field = ForceField.from_system(dipeptide[0])
    x = _tensor(shaken(dipeptide[1], (0.01,)))
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=_generator()))[0]
    turn = turn * torch.linalg.det(turn)
    energy, gradient = field.energy_and_gradient(x)
    moved, turned = field.energy_and_gradient(x @ turn + 3.0)
    torch.testing.assert_close(moved, energy, rtol=1e-9, atol=0)
    torch.testing.assert_close(turned, gradient @ turn, rtol=1e-7, atol=1e-6)
    assert gradient.sum(1).abs().max() < 1e-8 * gradient.abs().max()  # no net force
    torque = torch.linalg.cross(x, gradient).sum(1).abs().max()
    assert torque < 1e-8 * gradient.abs().max()


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_conformations_do_not_know_of_each_other(
    dipeptide: tuple[openmm.System, np.ndarray],
) -> None:
    field = ForceField.from_system(dipeptide[0])
    x = _tensor(shaken(dipeptide[1], (0.01, 0.02, 0.03)))
    alone, _ = field.energy_and_gradient(x)
    broken = x.clone()
    broken[1] = torch.nan
    energy, gradient = field.energy_and_gradient(broken)
    torch.testing.assert_close(energy[[0, 2]], alone[[0, 2]], rtol=1e-12, atol=0)
    assert energy[1].isnan()
    assert gradient[[0, 2]].isfinite().all()


@pytest.mark.parametrize("name", ["obc2", "gbn2", "gbsaobc", "hct"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_atoms_that_meet_have_finite_energies(name: str, dtype: torch.dtype) -> None:
    made = molecule(forcefield=FIELDS[name])
    field = ForceField.from_system(made.system, dtype)
    x = _tensor(np.stack([relaxed(made)] * 5))
    for b, r in enumerate((0.0, 1e-9, 1e-4, CORE, 0.01)):
        x[b, 19] = x[b, 3] + torch.tensor([r, 0.0, 0.0])
    x = torch.cat([x, torch.zeros_like(x[:1])])  # all of them in one point
    energy, gradient = field.energy_and_gradient(x)
    assert energy.isfinite().all()
    assert gradient.isfinite().all()
    assert (energy[:3] > 1e20).all()


def test_below_the_core_energy_and_gradient_belong_together(
    dipeptide: tuple[openmm.System, np.ndarray],
) -> None:
    field = ForceField.from_system(molecule(forcefield=("amber14-all.xml",)).system)
    x = _tensor(dipeptide[1][None]).clone()
    direction = torch.tensor([0.36, 0.48, 0.8], dtype=torch.float64)
    x[0, 19] = x[0, 3] + 0.5 * CORE * direction
    h = 1e-4 * CORE
    up, down = x.clone(), x.clone()
    up[0, 19] += h * direction
    down[0, 19] -= h * direction
    slope = (field(up) - field(down)) / (2 * h)
    along = (field.energy_and_gradient(x)[1][0, 19] * direction).sum()
    torch.testing.assert_close(slope[0], along, rtol=1e-5, atol=0)
    assert along < 0  # they push each other away


def test_single_precision_is_near(dipeptide: tuple[openmm.System, np.ndarray]) -> None:
    x = _tensor(shaken(dipeptide[1], (0.003, 0.01)))
    single = ForceField.from_system(dipeptide[0], torch.float32).energy_and_gradient(x)
    double = ForceField.from_system(dipeptide[0]).energy_and_gradient(x)
    assert single[0].dtype == torch.float32
    torch.testing.assert_close(single[0].double(), double[0], rtol=1e-5, atol=1e-3)
    scale = double[1].abs().max()
    torch.testing.assert_close(single[1].double(), double[1], rtol=0, atol=2e-5 * float(scale))


def test_parts_of_a_batch_are_the_batch(
    dipeptide: tuple[openmm.System, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    field = ForceField.from_system(dipeptide[0])
    x = _tensor(shaken(dipeptide[1], (0.01,) * 7))
    whole = field.energy_and_gradient(x)
    monkeypatch.setattr("mlff_cli.physics.forcefield.model.CHUNK", {"cpu": 500})
    for part, all_of_it in zip(field.energy_and_gradient(x), whole, strict=True):
        torch.testing.assert_close(part, all_of_it, rtol=1e-12, atol=1e-9)


def test_sums_by_index_are_sums_by_matrix(
    dipeptide: tuple[openmm.System, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = _tensor(shaken(dipeptide[1], (0.01, 0.02)))
    by_matrix = ForceField.from_system(dipeptide[0]).energy_and_gradient(x)
    monkeypatch.setattr("mlff_cli.physics.forcefield.sums.DENSE", 0)
    by_index = ForceField.from_system(dipeptide[0]).energy_and_gradient(x)
    for a, b in zip(by_matrix, by_index, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-9)


def _small(*forces: openmm.Force, n: int = 3) -> openmm.System:
    system = openmm.System()
    for _ in range(n):
        system.addParticle(12.0)
    for force in forces:
        system.addForce(force)
    return system


def test_a_molecule_without_terms_has_no_energy() -> None:
    field = ForceField.from_system(_small(openmm.CMMotionRemover(), openmm.HarmonicBondForce()))
    energy, gradient = field.energy_and_gradient(torch.zeros(2, 3, 3))
    assert not energy.any()
    assert not gradient.any()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (openmm.CMAPTorsionForce, ()),
        (openmm.CustomBondForce, ("r",)),
        (openmm.RBTorsionForce, ()),
        (openmm.CustomGBForce, ()),
    ],
)
def test_an_unknown_force_is_named(kind: type[openmm.Force], words: tuple[str, ...]) -> None:
    system = _small(kind(*words))
    with pytest.raises(UsageError, match=kind.__name__):
        ForceField.from_system(system)


def test_a_cutoff_a_box_and_a_virtual_site_are_refused() -> None:
    for method, named in (("CutoffNonPeriodic", "NoCutoff"), ("PME", "periodic")):
        cut = openmm.NonbondedForce()
        for _ in range(3):
            cut.addParticle(0.1, 0.3, 0.5)
        cut.setNonbondedMethod(getattr(openmm.NonbondedForce, method))
        system = _small(cut)
        with pytest.raises(UsageError, match=named):
            ForceField.from_system(system)
    virtual = _small()
    virtual.addParticle(0.0)
    virtual.setVirtualSite(3, openmm.TwoParticleAverageSite(0, 1, 0.5, 0.5))
    with pytest.raises(UsageError, match="virtual site at particle 3"):
        ForceField.from_system(virtual)


@pytest.mark.parametrize("changed", ["4.85", "28.3919551", "138.935485", "charge1"])
def test_another_expression_is_refused_or_read(changed: str) -> None:
    system = molecule(forcefield=OBC2).system
    text = openmm.XmlSerializer.serialize(system)
    other = {"4.85": "4.95", "28.3919551": "20.5", "138.935485": "130.5", "charge1": "charge2"}
    mutated = openmm.XmlSerializer.deserialize(text.replace(changed, other[changed]))
    if changed == "charge1":
        with pytest.raises(UsageError, match="CustomGBForce"):
            ForceField.from_system(mutated)
        return
    made = molecule(forcefield=OBC2)
    _agrees(mutated, shaken(made.positions, (0.0, 0.01)))


def test_positions_of_another_molecule_are_refused(
    dipeptide: tuple[openmm.System, np.ndarray],
) -> None:
    field = ForceField.from_system(dipeptide[0])
    with pytest.raises(DataError, match=r"\(B, 22, 3\), found \(2, 21, 3\)"):
        field.energy_and_gradient(torch.zeros(2, 21, 3))
