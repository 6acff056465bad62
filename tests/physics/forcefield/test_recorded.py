"""Systems made again from a record: the same energies, or a reason."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from mlff_cli.core.errors import DataError
from mlff_cli.physics.energies import TorchEnergy
from mlff_cli.physics.forcefield import ForceField
from mlff_cli.physics.forcefield.recorded import check_recorded, system_of
from mlff_cli.physics.openmm_structures import topology_pdb
from tests.physics.forcefield.molecules import GBN2, OBC2, molecule, openmm_energies, shaken


@pytest.mark.parametrize(
    ("peptide", "forcefield"), [("ACE-HIS-CYS-NME", GBN2), ("GLY-DAL-GLY", OBC2)]
)
def test_the_system_is_the_one_that_was_sampled(peptide: str, forcefield: Sequence[str]) -> None:
    made = molecule(peptide, tuple(forcefield))
    again = system_of(topology_pdb(made), forcefield)
    x = shaken(made.positions, (0.0, 0.01))
    mine, theirs = (openmm_energies(s.system, x) for s in (again, made))
    np.testing.assert_allclose(mine[0], theirs[0], rtol=1e-10)
    np.testing.assert_allclose(mine[1], theirs[1], rtol=1e-7, atol=1e-6)
    names = [[r.name for r in s.topology.residues()] for s in (again, made)]
    assert names[0] == names[1]


def test_recorded_energies_are_met_or_told() -> None:
    made = molecule()
    x = shaken(made.positions, (0.0, 0.002, 0.004)).astype("float32").astype("float64")
    recorded = openmm_energies(made.system, x)[0]
    same = TorchEnergy(ForceField.from_system(system_of(topology_pdb(made), OBC2).system))
    assert check_recorded(same, x, recorded) < 1e-6
    other = TorchEnergy(ForceField.from_system(system_of(topology_pdb(made), GBN2).system))
    with pytest.raises(DataError, match=r"a\.h5: energies must be those of the sampling"):
        check_recorded(other, x, recorded, where="a.h5")
    x[1] = np.nan
    with pytest.raises(DataError, match="1 of the 3 compared are not: frame 1 has inf"):
        check_recorded(same, x, recorded)


def test_a_record_that_is_not_whole_is_refused() -> None:
    made = molecule()
    pdb = topology_pdb(made)
    with pytest.raises(DataError, match=r"a\.h5: the recorded topology cannot be read"):
        system_of("ATOM", OBC2, where="a.h5")
    heavy = "".join(line for line in pdb.splitlines(True) if line[76:78].strip() != "H")
    with pytest.raises(DataError, match="12 are missing"):
        system_of(heavy, OBC2)
    with pytest.raises(DataError, match=r"a\.h5: the attribute forcefield .*'gone\.xml'"):
        system_of(pdb, ("gone.xml",), where="a.h5")
    with pytest.raises(DataError, match="the attribute forcefield"):
        system_of(pdb, ("[not json",))


@pytest.mark.parametrize("wrong", [1e12, 1.0])
def test_one_wrong_energy_among_hundreds_is_found(wrong: float) -> None:
    made = molecule()
    engine = TorchEnergy(ForceField.from_system(made.system))
    x = np.repeat(shaken(made.positions, (0.0, 0.002)), 150, axis=0)
    recorded = engine(torch.from_numpy(x))[0].numpy()
    assert check_recorded(engine, x, recorded) < 1e-6
    recorded[137] += wrong
    with pytest.raises(DataError, match="1 of the 300 compared are not: frame 137") as caught:
        check_recorded(engine, x, recorded)
    assert "other positions" in str(caught.value.remedy)


def test_energies_of_no_frames_agree() -> None:
    made = molecule()
    engine = TorchEnergy(ForceField.from_system(made.system))
    assert check_recorded(engine, np.zeros((0, 22, 3)), np.zeros(0)) == 0.0
    assert engine(torch.zeros(0, 22, 3))[1].shape == (0, 22, 3)
