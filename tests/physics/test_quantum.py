"""Laws of every labelling engine, then published numbers, then refusals."""

from __future__ import annotations

import numpy as np
import pytest

from mlff_cli.core.errors import DataError, NumericalError, UsageError
from mlff_cli.core.units import HARTREE
from mlff_cli.physics.quantum import Engine, check_electrons, make_engine

pytest.importorskip("tblite", reason="needs the extra 'label'")
pytest.importorskip("pyscf", reason="needs the extra 'label'")

WATER = np.array([[0.02, 0.01, 0.13], [0.80, 0.05, -0.47], [-0.73, 0.11, -0.51]])  # angstrom
HYDROXIDE = np.array([[0.0, 0.0, 0.0], [0.3, 0.2, 0.95]])
CASES = [  # method, coord, numbers, charge, mult
    ("gfn2-xtb", WATER, [8, 1, 1], 0, 1),
    ("gfn2-xtb", WATER, [8, 1, 1], 1, 2),
    ("gfn1-xtb", HYDROXIDE, [8, 1], -1, 1),
    ("pyscf:pbe/sto-3g", WATER, [8, 1, 1], 0, 1),
    ("pyscf:b3lyp/sto-3g", WATER, [8, 1, 1], 1, 2),
    ("ase:tblite.ase:TBLite", HYDROXIDE, [8, 1], -1, 1),
    ("ase:ase.calculators.emt:EMT", 2.2 * WATER, [29, 29, 13], 0, 2),
]
NAMES = [f"{method} {charge:+d} {mult}" for method, _, _, charge, mult in CASES]


@pytest.mark.parametrize(("method", "coord", "numbers", "charge", "mult"), CASES, ids=NAMES)
def test_laws(method: str, coord: np.ndarray, numbers: list[int], charge: int, mult: int) -> None:
    engine = make_engine(method)
    z = np.array(numbers)
    labels = engine(coord, z, charge, mult)
    assert set(labels) == set(engine.labels)
    assert all(v.dtype == np.float64 for v in labels.values())

    # forces are minus the gradient, along a direction that no symmetry spares
    direction = np.random.default_rng(1).normal(size=coord.shape)
    direction /= np.linalg.norm(direction)
    h = 4e-3  # angstrom; four points leave an error of order h^4
    energy = {
        k: float(engine(coord + k * h * direction, z, charge, mult)["energy"])
        for k in (-2, -1, 1, 2)
    }
    slope = (8 * (energy[1] - energy[-1]) - (energy[2] - energy[-2])) / (12 * h)
    assert -(labels["forces"] * direction).sum() == pytest.approx(slope, abs=5e-5)

    # nothing outside pulls or turns the molecule
    np.testing.assert_allclose(labels["forces"].sum(axis=0), 0.0, atol=1e-8)
    if "charges" in labels:
        assert labels["charges"].sum() == pytest.approx(charge, abs=1e-8)
    if "spin_charges" in labels:
        assert labels["spin_charges"].sum() == pytest.approx(mult - 1, abs=1e-8)
        if mult == 1:
            np.testing.assert_array_equal(labels["spin_charges"], 0.0)


@pytest.mark.parametrize("method", ["gfn2-xtb", "gfn1-xtb", "pyscf:pbe/sto-3g"])
def test_order_of_the_atoms_does_not_matter(method: str) -> None:
    engine = make_engine(method)
    order = [2, 0, 1]
    numbers = np.array([8, 1, 1])
    first = engine(WATER, numbers, 0, 1)
    second = engine(WATER[order], numbers[order], 0, 1)
    assert float(second["energy"]) == pytest.approx(float(first["energy"]), abs=1e-6)
    np.testing.assert_allclose(second["forces"], first["forces"][order], atol=1e-4)
    np.testing.assert_allclose(second["charges"], first["charges"][order], atol=1e-5)


def test_a_calculator_by_name_is_the_engine() -> None:
    """TBLite's own ASE calculator, with charge and units of ASE, against the tblite engine."""
    ours = make_engine("gfn2-xtb")(HYDROXIDE, np.array([8, 1]), -1, 1)
    theirs = make_engine("ase:tblite.ase:TBLite")(HYDROXIDE, np.array([8, 1]), -1, 1)
    assert float(theirs["energy"]) == pytest.approx(float(ours["energy"]), abs=1e-4)
    np.testing.assert_allclose(theirs["charges"], ours["charges"], atol=1e-5)


def test_water_of_the_xtb_documentation() -> None:
    """Xtb's documentation optimizes water with GFN2-xTB to -5.070544 hartree."""
    engine = make_engine("gfn2-xtb")
    coord, numbers = WATER.copy(), np.array([8, 1, 1])
    for _ in range(200):
        forces = engine(coord, numbers, 0, 1)["forces"]
        coord += 0.012 * forces
    assert np.abs(forces).max() < 5e-3
    energy = float(engine(coord, numbers, 0, 1)["energy"])
    assert energy / HARTREE == pytest.approx(-5.070544, abs=2e-6)


@pytest.mark.parametrize(
    ("number", "mult", "hartree"), [(1, 2, -0.478671), (2, 1, -2.834836)], ids=["H", "He"]
)
def test_atoms_of_the_nist_tables(number: int, mult: int, hartree: float) -> None:
    """NIST's atomic reference data (LSD for H, LDA for He, VWN), at the basis-set limit."""
    engine = make_engine("pyscf:lda,vwn/def2-qzvp")
    labels = engine(np.zeros((1, 3)), np.array([number]), 0, mult)
    assert float(labels["energy"]) / HARTREE == pytest.approx(hartree, abs=2e-4)


def test_an_engine_says_what_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    engine = make_engine("pyscf:PBE/def2-SVP")
    assert engine.level_of_theory == "pbe/def2-svp"
    assert engine.settings["xc"] == "PBE"
    assert engine.settings["grid_level"] == 3
    assert engine.versions["pyscf"][0].isdigit()
    engine(np.array([[0, 0, 0], [0, 0, 0.74]]), np.array([1, 1]), 0, 1)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    "method",
    [
        "gfn3-xtb",
        "gfn2-xtb:fast",
        "pyscf",
        "pyscf:pbe",
        "pyscf:pbe/",
        "pyscf:nofunctional/sto-3g",
        "pyscf:pbe/nobasis",
        "ase:ase.calculators.emt",
        "ase:ase.calculators.emt:Nothing",
        "ase:no.such.module:EMT",
        "ase:ase:Atoms",
        "",
    ],
)
def test_unknown_methods_are_refused(method: str) -> None:
    with pytest.raises(UsageError):
        make_engine(method)


@pytest.mark.parametrize(
    ("numbers", "charge", "mult"), [([8, 1], 0, 1), ([8, 1, 1], 0, 2), ([1], 1, 1), ([1], 0, 4)]
)
def test_impossible_electrons_are_refused(numbers: list[int], charge: int, mult: int) -> None:
    with pytest.raises(DataError, match="electrons"):
        check_electrons(np.array(numbers), charge, mult)


@pytest.mark.parametrize("method", ["gfn2-xtb", "pyscf:pbe/sto-3g"])
def test_nuclei_on_one_point_are_a_numerical_failure(method: str) -> None:
    with pytest.raises(NumericalError):
        make_engine(method)(np.zeros((2, 3)), np.array([1, 1]), 0, 1)


def test_a_result_that_is_not_finite_is_refused() -> None:
    def evaluate(x: np.ndarray, z: np.ndarray, charge: int, mult: int) -> dict[str, np.ndarray]:
        return {"energy": np.array(np.log(0.0 * x.sum() - 1.0))}

    with np.errstate(invalid="ignore"), pytest.raises(NumericalError, match="energy"):
        Engine("x", "x", ("energy",), {}, (), evaluate)(WATER, np.array([8, 1, 1]), 0, 1)
