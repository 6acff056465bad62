"""The generator obeys the laws that tests rely on."""

from pathlib import Path

import h5py
import numpy as np

from mlff_cli.data.grouped_hdf5 import GroupedHDF5
from tests.synthetic import (
    grow_molecule,
    pair_potential,
    partial_charges,
    self_energy,
    write_dataset,
    write_large,
)


def test_forces_are_minus_the_gradient() -> None:
    rng = np.random.default_rng(0)
    numbers = np.array([[1, 6, 7, 8, 17], [1, 1, 6, 6, 8]])
    coord = np.stack([grow_molecule(z, rng) for z in numbers])
    forces = pair_potential(coord, numbers)[1]
    h = 1e-5
    for i in range(5):
        for k in range(3):
            step = np.zeros_like(coord)
            step[:, i, k] = h
            up, down = (pair_potential(coord + s * step, numbers)[0] for s in (1, -1))
            np.testing.assert_allclose(forces[:, i, k], (down - up) / (2 * h), atol=1e-7)


def test_charges_sum_to_the_total() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.choice([1, 6, 8], size=(3, 6))
    coord = rng.normal(size=(3, 6, 3))
    charge = np.array([-1.0, 0.0, 2.0])
    charges = partial_charges(coord, numbers, charge)
    np.testing.assert_allclose(charges.sum(1), charge, atol=1e-12)
    assert charges.std() > 0.01


def test_files_hold_their_potential(tmp_path: Path) -> None:
    labels = ("energy", "forces", "charges", "spin_charges")
    path = write_dataset(tmp_path / "d.h5", 120, labels=labels, charged=True, n_parents=9)
    with GroupedHDF5(path) as file:
        file.validate()
        assert file.n_molecules == 120
        names: set[str] = set()
        for group in file.groups:
            coord, numbers = group.read("coord"), group.read("numbers")
            energy, forces = pair_potential(coord, numbers)
            total = energy + self_energy(numbers).sum(1)
            np.testing.assert_allclose(group.read("energy"), total, rtol=1e-12)
            np.testing.assert_allclose(group.read("forces"), forces, rtol=1e-5, atol=1e-4)
            charge, mult = group.read("charge"), group.read("mult")
            np.testing.assert_allclose(group.read("charges").sum(1), charge, atol=1e-5)
            np.testing.assert_allclose(group.read("spin_charges").sum(1), mult - 1, atol=1e-5)
            names.update(group.read("molecule").tolist())
    assert len(names) == 9


def test_parents_are_shared_and_labels_missing_on_request(tmp_path: Path) -> None:
    first = write_dataset(tmp_path / "a.h5", 60, 1, parent_seed=7, missing=0.5)
    second = write_dataset(tmp_path / "b.h5", 60, 2, parent_seed=7, labels=("energy",))
    with GroupedHDF5(first) as a, GroupedHDF5(second) as b:
        assert [g.name for g in a.groups] == [g.name for g in b.groups]
        missing = []
        for x, y in zip(a.groups, b.groups, strict=True):
            np.testing.assert_array_equal(x.read("numbers"), y.read("numbers"))
            assert x.read("molecule").tolist() == y.read("molecule").tolist()
            assert not np.array_equal(x.read("coord"), y.read("coord"))
            missing.append(np.isnan(x.read("energy")))
        assert 0.2 < np.concatenate(missing).mean() < 0.8
        assert b.fields & {"forces", "charges"} == set()


def test_the_large_file_has_its_shape(tmp_path: Path) -> None:
    path = write_large(tmp_path / "d.h5", 2001)
    with GroupedHDF5(path) as file:
        file.validate()
        assert file.n_molecules == 2001
        assert {"energy", "forces", "charges"} <= file.fields
    again = write_large(tmp_path / "e.h5", 2001)
    with h5py.File(path) as a, h5py.File(again) as b:
        for name in a:
            np.testing.assert_array_equal(a[name]["numbers"], b[name]["numbers"])
            np.testing.assert_array_equal(a[name]["energy"], b[name]["energy"])
