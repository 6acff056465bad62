"""Structures of files and arrays: names, places and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from openmm import app, unit

from mlff_cli.core.errors import DataError, StorageError
from mlff_cli.physics.openmm_structures import read_structure, rename_residues, topology_pdb
from mlff_cli.physics.openmm_system import build_system
from tests.physics.chains import peptide

IMPLICIT = ("amber14-all.xml", "implicit/obc2.xml")


def test_pdb_text_has_no_date_and_keeps_names() -> None:
    made = build_system(peptide("ACE-ALA-NME"), IMPLICIT)
    rename_residues(made.topology, ["ACE", "DAL", "NME"])
    text = topology_pdb(made)
    assert "REMARK" not in text
    assert {line[17:20] for line in text.splitlines() if line[:6] in ("ATOM  ", "HETATM")} == {
        "ACE",
        "DAL",
        "NME",
    }


def test_files_are_read_or_refused(tmp_path: Path) -> None:
    made = build_system(peptide(), IMPLICIT)
    (tmp_path / "a.pdb").write_text(topology_pdb(made))
    found = read_structure(tmp_path / "a.pdb")
    np.testing.assert_allclose(found.positions, made.positions, atol=6e-5)
    with (tmp_path / "a.cif").open("w") as stream:
        app.PDBxFile.writeFile(made.topology, made.positions * unit.nanometer, stream)
    np.testing.assert_allclose(
        read_structure(tmp_path / "a.cif").positions, made.positions, atol=6e-5
    )
    with pytest.raises(StorageError, match="does not exist"):
        read_structure(tmp_path / "none.pdb")
    first = f"{10 * made.positions[0, 0]:8.3f}"
    (tmp_path / "b.pdb").write_text(topology_pdb(made).replace(first, "   x.xxx"))
    with pytest.raises(DataError, match="cannot read it"):
        read_structure(tmp_path / "b.pdb")
