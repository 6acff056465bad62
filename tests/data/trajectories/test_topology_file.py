"""Topologies from files: bonds of standard residues, bonds made by distance, and what is said."""

from __future__ import annotations

from pathlib import Path

import mdtraj
import numpy as np
import pytest

from mlff_cli.core.errors import DataError, StorageError
from mlff_cli.data.trajectories.topology_file import (
    atomic_numbers,
    bonded_pairs,
    complete_bonds,
    read_topology,
    topology_from_pdb,
)
from tests.data.trajectory_cases import (
    X0,
    Z,
    pdb_text,
    psf_text,
    rows_of_the_molecule,
    topology,
    write_pdb,
)


def test_standard_residues_need_no_help(tmp_path: Path) -> None:
    found = read_topology(write_pdb(tmp_path / "a.pdb"))
    assert not found.notes
    assert found.positions is not None
    np.testing.assert_allclose(found.positions, X0, atol=1e-4)
    np.testing.assert_array_equal(atomic_numbers(found.topology), Z)
    np.testing.assert_array_equal(bonded_pairs(found.topology), bonded_pairs(topology()))
    assert len(bonded_pairs(found.topology)) == 21  # a tree of 22 atoms
    same = topology_from_pdb(pdb_text(), "x.h5")
    np.testing.assert_array_equal(bonded_pairs(same.topology), bonded_pairs(topology()))


@pytest.mark.parametrize("change", ["residue", "hydrogens"])
def test_missing_bonds_are_made_by_distance(tmp_path: Path, change: str) -> None:
    """A residue that nobody knows, or hydrogens of another naming, get the bonds they have."""
    rows = rows_of_the_molecule()
    for row in rows:
        if row[0] == "ALA" and change == "residue":
            row[0] = "XYZ"
        if row[2] in ("HB1", "HB2", "HB3") and change == "hydrogens":
            row[2] = "Q" + row[2][-1]
    found = read_topology(write_pdb(tmp_path / "a.pdb", rows))
    np.testing.assert_array_equal(bonded_pairs(found.topology), bonded_pairs(topology()))
    name, n = ("XYZ", 10) if change == "residue" else ("ALA", 3)
    assert any(f"{n} bonds made by distance in residues {name} (1)" in t for t in found.notes) or (
        change == "residue"
        and any("bonds made by distance in residues XYZ" in t for t in found.notes)
    )


def test_without_coordinates_the_gap_is_said() -> None:
    bare = topology().copy()
    bare._bonds = []
    notes = complete_bonds(bare, None, "a.psf")
    assert len(notes) == 1
    assert "ALA (1)" in notes[0]
    assert "no coordinates" in notes[0]


def test_an_atom_far_from_its_residue_is_said(tmp_path: Path) -> None:
    rows = rows_of_the_molecule()
    rows[12][2:] = ["Q2", "H", "20", "20", "20"]
    notes = read_topology(write_pdb(tmp_path / "a.pdb", rows)).notes
    assert any("without a bond to the rest" in note for note in notes)


def test_other_formats_have_the_same_atoms_and_bonds(tmp_path: Path) -> None:
    frame = mdtraj.Trajectory(X0[None] / 10, topology())
    for name in ("a.gro", "a.cif", "a.psf"):
        if name == "a.psf":
            (tmp_path / name).write_text(psf_text())
        else:
            frame.save(str(tmp_path / name))
        found = read_topology(tmp_path / name)
        np.testing.assert_array_equal(bonded_pairs(found.topology), bonded_pairs(topology()))
        np.testing.assert_array_equal(atomic_numbers(found.topology), Z)
        assert (found.positions is None) == (name == "a.psf")
        assert not found.notes


# mdtraj leaves the file open when its parser fails
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_is_no_topology(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="does not exist"):
        read_topology(tmp_path / "none.pdb")
    for name, text in (("a.pdb", "END\n"), ("a.xyz", "1\n\nC 0 0 0\n"), ("a.gro", "x"), ("b", "")):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=r"topology") as caught:
            read_topology(tmp_path / name)
        assert caught.value.remedy
    with pytest.raises(DataError, match="traj.h5"):
        topology_from_pdb("END\n", "traj.h5")
