"""Bead molecules of sets: masses that sum to the atoms', names, terms, and the first frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.data import atomic_masses

from mlff_cli.data.beads.cg_beads import BeadMolecule
from mlff_cli.data.beads.cg_npz import CGSet
from mlff_cli.data.beads.cg_writer import write_cg
from mlff_cli.deploy.beads.molecules import atom_shares, bead_masses, molecules_of, residue_mass
from mlff_cli.potentials.bead_topology import BeadTopology, find_molecule
from tests.data.cg_sets import SOURCES, block, chain, seed_set


def backbone() -> BeadMolecule:
    """Two glycines, atoms N H CA HA C O each, one bead on each CA."""
    elements = np.tile([7, 1, 6, 1, 6, 8], 2).astype(np.int32)
    one = np.array([[0, 1], [0, 2], [2, 3], [2, 4], [4, 5]])
    mapping = np.zeros((2, 12))
    mapping[0, 2] = mapping[1, 8] = 1.0
    return BeadMolecule(
        name="dimer",
        species=np.array([0, 1], np.int32),
        residue=np.array([1, 2], np.int32),
        residue_name=np.array(["GLY", "GLY"]),
        bead_name=np.array(["CA", "CA"]),
        chain=np.zeros(2, np.int32),
        bonds=np.array([[0, 1]], np.int32),
        mapping=mapping,
        elements=elements,
        atom_bonds=np.concatenate([one, one + 6, [[4, 6]]]).astype(np.int32),
    )


def test_every_atom_s_mass_goes_to_the_bead_of_its_residue() -> None:
    shares = atom_shares(backbone())
    assert shares.tolist() == [[1.0, 0.0]] * 6 + [[0.0, 1.0]] * 6
    each = atomic_masses[[7, 1, 6, 1, 6, 8]].sum()
    np.testing.assert_allclose(bead_masses(backbone()), [each, each])


@pytest.mark.parametrize("seed", range(4))
def test_masses_of_beads_sum_to_the_molecule_s(seed: int) -> None:
    rng = np.random.default_rng(seed)
    molecule = chain(5, seed=seed)
    mapping = rng.uniform(size=(5, 10)) * (rng.random((5, 10)) < 0.3)
    mapping[np.arange(5), np.arange(5)] += 0.1  # the last five atoms may belong to none
    object.__setattr__(molecule, "mapping", mapping / mapping.sum(1, keepdims=True))
    object.__setattr__(molecule, "atom_bonds", molecule.atom_bonds[:7])  # two atoms far from all
    masses = bead_masses(molecule)
    assert masses.sum() == pytest.approx(atomic_masses[6] * 10)
    assert (masses > 0).all()


def test_residues_have_the_masses_of_their_formulas() -> None:
    # average masses of residues as proteomics tabulates them
    for name, mass in {"GLY": 57.05, "ALA": 71.08, "TRP": 186.21, "MET": 131.19}.items():
        assert residue_mass(name) == pytest.approx(mass, abs=0.02)
    assert residue_mass("DAL") == residue_mass("ALA")
    assert residue_mass("UNK") == 110.0


def test_molecules_of_a_set_survive_plain_values(tmp_path: Path) -> None:
    path = tmp_path / "cg.npz"
    known = [chain(6, name="six"), chain(4, name="four", seed=1)]
    frames = [block(1, 4, 3, seed=1), block(0, 6, 2, seed=2)]
    write_cg(path, known, ["ALA", "GLY", "TRP"], SOURCES, {}, frames)
    with CGSet(path) as cg:
        found = molecules_of(cg)
        topologies = list(found)
        assert found.notes == []
    six = find_molecule(topologies, "six", "here")
    assert six.types == tuple(np.array(["ALA", "GLY", "TRP"])[known[0].species])
    assert six.residue_names == ("R0", "R1", "R2", "R3", "R4", "R5")
    assert six.terms.bonds.tolist() == [[i, i + 1] for i in range(5)]
    np.testing.assert_array_equal(six.start, frames[1].R[0].astype(np.float64))
    again = BeadTopology.from_plain(six.plain())
    assert again.plain() == six.plain()


def test_what_is_assumed_of_a_set_without_atoms_is_said(tmp_path: Path) -> None:
    path = tmp_path / "seed.npz"
    real = seed_set(path, [3, 5, 3])
    with CGSet(path) as cg:
        found = molecules_of(cg)
        assert "110 amu for UNK" in found.notes[0]
        np.testing.assert_allclose(found[0].masses, 110.0)
        np.testing.assert_allclose(found[1].start, real[1][1])
