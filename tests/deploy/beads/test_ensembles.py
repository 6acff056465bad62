"""References of every kind say the same, and molecules are found or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.core.reporting import NullReporter
from mlff_cli.data.beads.bead_pdb import bead_pdb
from mlff_cli.data.beads.cg_npz import CGSet
from mlff_cli.deploy.beads.ensembles import Wanted, compare_ensembles, native_structure
from mlff_cli.deploy.beads.molecules import molecules_of
from tests.coarse.backbones import NAMES, backbone_frames, backbone_molecule
from tests.deploy.beads.evaluation_cases import backbone_set, cg_set, simulation

R = 1.987204e-3  # kcal/mol/K
MAPPED = replace(  # every bead the mean of two atoms; three atoms of water follow
    backbone_molecule(2),
    mapping=np.kron(np.eye(10), [[0.5, 0.5]]),
    elements=np.full(20, 6, np.int32),
    atom_bonds=np.array([[2 * k, 2 * k + 1] for k in range(10)], np.int32),
)


def wanted(folder: Path, reference: str) -> Wanted:
    with CGSet(folder / "set.npz") as cg:
        topology = molecules_of(cg)[0]
    return Wanted((folder / "sim.h5",), folder / reference, topology, MAPPED, bins=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ensembles")
    x = backbone_frames(600, 2)
    backbone_set(path / "set.npz", x)
    simulation(path / "beads.h5", x)
    shift = np.random.default_rng(0).normal(0, 0.3, x.shape)
    atoms = np.stack([x - shift, x + shift], axis=2).reshape(600, 20, 3)
    water = np.zeros((600, 3, 3)) + 20.0 + np.arange(3)[:, None]
    simulation(path / "atoms.h5", np.concatenate([atoms, water], axis=1))
    simulation(path / "sim.h5", backbone_frames(500, 2, seed=3))
    return path


def test_a_set_its_beads_and_its_atoms_are_one_reference(folder: Path) -> None:
    found = [
        compare_ensembles(wanted(folder, name), R, NullReporter())
        for name in ("set.npz", "beads.h5", "atoms.h5")
    ]
    names = [one.name for one in found[0].profiles]
    assert {"psi ALA1", "phi ALA2", "RMSD", "Rg", "TIC 1", "TIC 2"} <= set(names)
    for other in found[1:]:
        assert other.frames == found[0].frames == (600, 500)
        assert [one.name for one in other.profiles] == names
        for a, b in zip(found[0].profiles, other.profiles, strict=True):
            # float32 may put a frame on the other side of a cell's border
            assert np.abs(a.reference - b.reference).sum() <= 8
            assert a.comparison is not None
            assert b.comparison is not None
            assert b.comparison.ratio == pytest.approx(a.comparison.ratio, rel=0.15)


def test_the_native_structure_can_be_chosen(folder: Path) -> None:
    first = compare_ensembles(wanted(folder, "set.npz"), R, NullReporter())
    other = replace(wanted(folder, "set.npz"), native=backbone_frames(1, 2, seed=8)[0])
    second = compare_ensembles(other, R, NullReporter())
    columns = [next(p for p in c.profiles if p.name == "RMSD") for c in (first, second)]
    assert columns[0].axes != columns[1].axes


def test_a_native_structure_is_of_beads_or_of_their_atoms(folder: Path, tmp_path: Path) -> None:
    topology = wanted(folder, "set.npz").topology
    x = backbone_frames(1, 2)[0]
    for n in (1, 2):
        k, positions = np.arange(10 * n), np.repeat(x, n, axis=0)
        text = bead_pdb(("CA",) * len(k), ("GLY",) * len(k), k, 0 * k, positions, np.zeros((0, 2)))
        (tmp_path / f"{n}.pdb").write_text(text)
    for n in (1, 2):
        found = native_structure(tmp_path / f"{n}.pdb", topology, MAPPED)
        assert np.allclose(found, x, atol=2e-3)
    with pytest.raises(DataError, match="needs 10 beads or the atoms .* found 20 positions"):
        native_structure(tmp_path / "2.pdb", topology, None)
    assert native_structure(None, topology, None) is None


def test_frames_without_a_time_step_have_no_slow_modes(folder: Path, tmp_path: Path) -> None:
    with CGSet(folder / "set.npz") as cg:
        topology = molecules_of(cg)[0]
    short = Wanted((folder / "sim.h5",), folder / "set.npz", topology, bins=12, lag=700)
    found = compare_ensembles(short, R, NullReporter())
    assert found.timescales == []
    assert any("no slow modes" in note for note in found.notes)
    assert not any("TIC" in one.name for one in found.profiles)


def test_unknown_temperatures_and_other_molecules_are_refused(folder: Path, tmp_path: Path) -> None:
    simulation(tmp_path / "silent.h5", backbone_frames(50, 2), kelvin=None)
    base = wanted(folder, "set.npz")
    with pytest.raises(UsageError, match="the reference does not say it"):
        compare_ensembles(replace(base, reference=tmp_path / "silent.h5"), R, NullReporter())
    told = replace(base, reference=tmp_path / "silent.h5", kelvin=300.0)
    assert compare_ensembles(told, R, NullReporter()).kelvin == 300.0
    three = backbone_molecule(3)
    x = backbone_frames(20, 3)
    cg_set(tmp_path / "three.npz", [(three, x, None)], NAMES)
    with pytest.raises(DataError, match="no molecule 'backbone' of 10 beads"):
        compare_ensembles(replace(base, reference=tmp_path / "three.npz"), R, NullReporter())
    with pytest.raises(DataError, match="23 atoms that the set cannot map"):
        compare_ensembles(
            replace(base, reference=folder / "atoms.h5", mapping=None), R, NullReporter()
        )
