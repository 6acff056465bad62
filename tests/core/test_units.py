"""Units: CODATA 2018 as ASE has it, and the published Coulomb constant."""

import ase.units
import pytest

from mlff_cli.core import units

CODATA = ase.units.create_units("2018")
# ASE derives hartree and bohr from the electron's mass, charge and hbar; the rounding of these
# inputs (1e-10 relative) is the tolerance.
TOLERANCE = 1e-9


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (units.HARTREE, CODATA["Hartree"]),
        (units.BOHR, CODATA["Bohr"]),
        (units.KCAL_MOL, CODATA["kcal"] / CODATA["mol"]),
        (units.KJ_MOL, CODATA["kJ"] / CODATA["mol"]),
        (units.COULOMB, CODATA["Hartree"] * CODATA["Bohr"]),
    ],
)
def test_constants_agree_with_ase(ours: float, theirs: float) -> None:
    assert ours == pytest.approx(theirs, rel=TOLERANCE)


def test_constants_are_the_published_digits() -> None:
    assert units.HARTREE == 27.211386245988  # CODATA 2018, eV
    assert units.BOHR == 0.529177210903  # CODATA 2018, angstrom
    assert abs(units.COULOMB - 14.399645478) < 5e-10  # eV angstrom
    assert abs(units.COULOMB / 2 - 7.199822739) < 5e-10  # per ordered pair


def test_kcal_per_mol_follows_from_the_exact_constants_of_the_si() -> None:
    avogadro, charge = 6.02214076e23, 1.602176634e-19  # exact since 2019
    assert abs(units.KCAL_MOL * avogadro * charge - 4184) < 1e-8
    assert abs(units.KJ_MOL * avogadro * charge - 1000) < 1e-8
