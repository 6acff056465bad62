"""Beads as PDB: mdtraj and MDAnalysis read what was written."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import mdtraj
import numpy as np

from mlff_cli.data.beads.bead_pdb import bead_elements, bead_pdb

NAMES = ["N", "CA", "CB", "C", "SC1", "HC12"]
RESIDUES = ["ALA", "ALA", "ALA", "ALA", "NLE", "NLE"]
X = np.random.default_rng(0).normal(scale=20.0, size=(6, 3))


def text(**changes: object) -> str:
    given = {
        "bead_names": NAMES,
        "residue_names": RESIDUES,
        "residues": np.array([1, 1, 1, 1, 2, 10_002]),
        "chains": np.array([0, 0, 0, 0, 1, 1]),
        "positions": X,
        "bonds": np.array([[0, 1], [1, 2], [4, 5]]),
    }
    return bead_pdb(**{**given, **changes})  # type: ignore[arg-type]


def test_mdtraj_reads_it_back(tmp_path: Path) -> None:
    path = tmp_path / "beads.pdb"
    path.write_text(text(remarks=["broken"]))
    found = mdtraj.load(str(path))
    atoms = list(found.topology.atoms)
    assert [a.name for a in atoms] == NAMES
    assert [a.residue.name for a in atoms] == RESIDUES
    assert [a.residue.chain.index for a in atoms] == [0, 0, 0, 0, 1, 1]
    assert [a.element.atomic_number for a in atoms] == bead_elements(NAMES).tolist()
    assert {(a.index, b.index) for a, b in found.topology.bonds} >= {(0, 1), (1, 2), (4, 5)}
    np.testing.assert_allclose(found.xyz[0] * 10, X, atol=1e-3)


def test_mdanalysis_reads_it_back() -> None:
    import MDAnalysis

    universe = MDAnalysis.Universe(StringIO(text()), format="PDB")
    assert universe.atoms.names.tolist() == NAMES
    assert universe.bonds.indices.tolist() == [[0, 1], [1, 2], [4, 5]]
    np.testing.assert_allclose(universe.atoms.positions, X, atol=1e-3)


def test_what_does_not_fit_stays_in_its_columns() -> None:
    wild = X.copy()
    wild[0], wild[1] = np.nan, 1e9
    lines = [line for line in text(positions=wild).splitlines() if line.startswith("ATOM")]
    assert {len(line) for line in lines} == {78}
    assert lines[0][30:54].split() == ["0.000"] * 3
    assert float(lines[1][30:38]) == 9999.0
