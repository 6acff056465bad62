"""Structures: what each format gives, the same for the same seed, and refused when malformed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlff_cli.core.errors import DataError, StorageError
from mlff_cli.data.distortions import BOLTZMANN, perturbed, thermal
from mlff_cli.data.structures import Structure, has_geometry, read_structures

Distortion = Callable[[Structure, float, int, int], Structure]

chem = pytest.importorskip("rdkit.Chem", reason="needs the extra 'label'")


def good(path: Path, conformers: int = 1, seed: int = 0) -> list[Structure]:
    found = list(read_structures(path, conformers=conformers, seed=seed))
    structures = [s for s in found if isinstance(s, Structure)]
    assert len(structures) == len(found)
    return structures


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_smiles_become_conformers(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.smi", "# list\n\nCCO ethanol # comment\nC[NH3+]\n[CH3] methyl\nC(=O)[O-]\n"
    )
    found = good(path, conformers=3)
    assert [len(s.numbers) for s in found] == [9] * 3 + [8] * 3 + [4] * 3 + [4] * 3
    assert [s.charge for s in found[::3]] == [0, 1, 0, -1]
    assert [s.mult for s in found[::3]] == [1, 1, 2, 1]
    assert [s.where.rsplit(":", 1)[1] for s in found[::3]] == ["3", "4", "5", "6"]
    assert found[0].molecule == "LFQSCWFLJHTTHZ-UHFFFAOYSA-N"  # ethanol's InChIKey
    assert len({s.molecule for s in found}) == 4
    assert not np.array_equal(found[0].coord, found[1].coord)
    assert not has_geometry(path)


def test_conformers_depend_on_seed_and_molecule_only(tmp_path: Path) -> None:
    first = good(written(tmp_path / "a.smi", "CCO\nCN\n"), conformers=2, seed=5)
    second = good(written(tmp_path / "b.smi", "O\nCCO\n"), conformers=2, seed=5)
    other = good(tmp_path / "a.smi", conformers=2, seed=6)
    for a, b, c in zip(first[:2], second[2:], other[:2], strict=True):
        np.testing.assert_array_equal(a.coord, b.coord)
        assert not np.array_equal(a.coord, c.coord)


@pytest.mark.parametrize(
    ("text", "line", "rule"),
    [
        ("CCO\nnonsense\n", 2, "not a valid SMILES"),
        ("C1CC\n", 1, "not a valid SMILES"),
        ("\n# x\nC.C\n", 3, "several molecules"),
    ],
)
def test_bad_smiles_name_their_line(tmp_path: Path, text: str, line: int, rule: str) -> None:
    path = written(tmp_path / "a.smi", text)
    with pytest.raises(DataError, match=rule) as caught:
        list(read_structures(path))
    assert caught.value.where == f"{path}:{line}"


def test_a_molecule_without_geometry_is_reported_and_passed_over(tmp_path: Path) -> None:
    path = written(tmp_path / "a.smi", "C1#CC1 cyclopropyne\nO\n")
    failed, water = read_structures(path)
    assert isinstance(failed, DataError)
    assert failed.where == f"{path}:1"
    assert "C1#CC1" in failed.message
    assert isinstance(water, Structure)


@pytest.mark.parametrize("name", ["a.smi", "a.xyz", "a.sdf"])
def test_empty_and_missing_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(StorageError, match="does not exist"):
        list(read_structures(tmp_path / name))
    with pytest.raises(DataError):
        list(read_structures(written(tmp_path / name, "")))


def test_sdf_keeps_geometry_and_charge(tmp_path: Path) -> None:
    mol = chem.AddHs(chem.MolFromSmiles("C[NH3+]"))
    all_chem = pytest.importorskip("rdkit.Chem.AllChem")
    assert all_chem.EmbedMolecule(mol, randomSeed=1) == 0
    path = tmp_path / "a.sdf"
    with chem.SDWriter(str(path)) as writer:
        writer.write(mol)
        writer.write(mol)
    first, second = good(path)
    np.testing.assert_allclose(first.coord, mol.GetConformer().GetPositions(), atol=1e-4)
    assert (first.charge, first.mult) == (1, 1)
    assert first.molecule == second.molecule == "BAVYZALUXZFZLV-UHFFFAOYSA-O"


def test_sdf_without_hydrogen_or_geometry_is_refused(tmp_path: Path) -> None:
    flat = chem.MolFromSmiles("CC")
    path = tmp_path / "a.sdf"
    with chem.SDWriter(str(path)) as writer:
        writer.write(flat)
    with pytest.raises(DataError, match="3D"):
        list(read_structures(path))


FRAME = """2
Properties=species:S:1:pos:R:3:forces:R:3{columns} {info}
H 0.0 0.0 0.0 0.1 0.0 0.0{a}
F 0.9 0.0 0.0 -0.1 0.0 0.0{b}
"""


def test_mace_keys_come_before_plain_ones(tmp_path: Path) -> None:
    info = 'energy=-1.0 REF_energy=-2.5 charge=0 mult=3 molecule=HF REF_dipole="1.0 2.0 3.0"'
    text = FRAME.format(
        columns=":REF_forces:R:3:REF_charges:R:1", info=info, a=" 0.5 0 0 0.4", b=" -0.5 0 0 -0.4"
    )
    (found,) = good(written(tmp_path / "a.xyz", text))
    assert float(found.labels["energy"]) == -2.5
    np.testing.assert_array_equal(found.labels["forces"], [[0.5, 0, 0], [-0.5, 0, 0]])
    np.testing.assert_array_equal(found.labels["charges"], [0.4, -0.4])
    np.testing.assert_array_equal(found.labels["dipole"], [1.0, 2.0, 3.0])
    assert (found.charge, found.mult, found.molecule) == (0, 3, "HF")


def test_plain_keys_that_ase_takes_into_its_calculator(tmp_path: Path) -> None:
    text = FRAME.format(columns="", info="energy=-1.25", a="", b="")
    (found,) = good(written(tmp_path / "a.xyz", text))
    assert float(found.labels["energy"]) == -1.25
    np.testing.assert_array_equal(found.labels["forces"], [[0.1, 0, 0], [-0.1, 0, 0]])
    assert (found.charge, found.mult, found.molecule) == (0, 1, "")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (FRAME.format(columns="", info="charge=0.5", a="", b=""), "whole number"),
        (FRAME.format(columns="", info="mult=x", a="", b=""), "whole number"),
        (FRAME.format(columns="", info='REF_energy="1 2"', a="", b=""), "energy"),
        (FRAME.format(columns="", info="", a="", b="").replace("H 0.0", "H nan"), "finite"),
        (FRAME.format(columns="", info="", a="", b="").replace("H 0.0", "Qq 0.0"), "cannot read"),
        (FRAME.format(columns="", info="", a="", b="").replace("H 0.0", "X 0.0"), "found 0"),
        ("3\n\nH 0 0 0\n", "cannot read"),
        (FRAME.format(columns="", info='Lattice="9 0 0 0 9 0 0 0 9"', a="", b=""), "in vacuum"),
    ],
)
def test_bad_frames_are_refused(tmp_path: Path, text: str, rule: str) -> None:
    whole = FRAME.format(columns="", info="", a="", b="")
    path = written(tmp_path / "a.extxyz", whole + text)
    with pytest.raises(DataError, match=rule) as caught:
        list(read_structures(path))
    assert str(path) in str(caught.value)


def ethanol(tmp_path: Path) -> Structure:
    return good(written(tmp_path / "e.smi", "CCO\n"))[0]


@pytest.mark.parametrize("distort", [perturbed, thermal])
def test_copies_differ_and_repeat(tmp_path: Path, distort: Distortion) -> None:
    start = ethanol(tmp_path)
    size = 0.05 if distort is perturbed else 400.0
    a, b, c = (distort(start, size, seed, copy) for seed, copy in ((1, 0), (1, 0), (1, 1)))
    np.testing.assert_array_equal(a.coord, b.coord)
    assert not np.array_equal(a.coord, c.coord)
    np.testing.assert_array_equal(distort(start, 0.0, 1, 0).coord, start.coord)


def test_thermal_displacements_hold_the_heat_they_name(tmp_path: Path) -> None:
    """Equipartition: <x' H x> = 3N k_B T' mean T' is T, bonds vary less than atoms move."""
    start = ethanol(tmp_path)
    temperature, copies = 300.0, 400
    moved = np.array([thermal(start, temperature, 3, i).coord for i in range(copies)])
    bond = np.linalg.norm(moved[:, 0] - moved[:, 1], axis=-1)
    spread = np.sqrt(((moved - start.coord) ** 2).sum(-1).mean())
    assert 0.02 < bond.std() < np.sqrt(BOLTZMANN * temperature / 30.0) * 1.5
    assert 0.06 < spread < 0.16  # angstrom per atom
    assert bond.std() < spread / 2


def test_perturbed_has_the_amplitude_it_names(tmp_path: Path) -> None:
    start = ethanol(tmp_path)
    sigma = 0.05
    moved = np.array([perturbed(start, sigma, 3, i).coord for i in range(400)]) - start.coord
    per_copy = moved.std(axis=(1, 2))
    assert per_copy.mean() == pytest.approx(sigma, rel=0.1)
    assert per_copy.max() == pytest.approx(2 * sigma, rel=0.4)
