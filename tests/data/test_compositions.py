"""Blocks hold what the file holds; samples are uniform and repeatable."""

from pathlib import Path

import numpy as np
import pytest

from mlff_cli.core.errors import DataError
from mlff_cli.data import compositions
from mlff_cli.data.compositions import Sample, blocks, count_elements
from mlff_cli.data.grouped_hdf5 import Group, GroupedHDF5
from mlff_cli.data.grouped_writer import GroupedHDF5Writer
from tests.synthetic import write_dataset


def test_counts_of_every_element_and_of_long_molecules() -> None:
    numbers = np.random.default_rng(0).integers(1, 119, size=(5, 700))
    numbers[0] = 1  # 700 hydrogens do not fit into a byte
    elements, counts = count_elements(numbers)
    for k, z in enumerate(elements):
        np.testing.assert_array_equal(counts[k], (numbers == z).sum(axis=1))
    np.testing.assert_array_equal(counts.sum(axis=0), 700)


def test_blocks_are_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_dataset(tmp_path / "d.h5", 200, missing=0.2)
    monkeypatch.setattr(compositions, "BLOCK_MOLECULES", 7)
    with GroupedHDF5(path) as file:
        total = np.zeros(119)
        energies = []
        for block in blocks(file):
            total[block.elements] += block.counts.sum(axis=1)
            energies.append(block.energy)
        stored = [(g.read("energy"), g.read("numbers")) for g in file.groups]
    labelled = np.concatenate([e[np.isfinite(e)] for e, _ in stored])
    np.testing.assert_array_equal(np.concatenate(energies), labelled)
    numbers = np.concatenate([z[np.isfinite(e)].ravel() for e, z in stored])
    np.testing.assert_array_equal(total, np.bincount(numbers, minlength=119))


def test_a_sample_has_its_size_and_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_dataset(tmp_path / "d.h5", 300, n_parents=20)
    monkeypatch.setattr(compositions, "BLOCK_MOLECULES", 11)
    with GroupedHDF5(path) as file:

        def draw(seed: int) -> list[float]:
            sample = Sample(57, 300, seed)
            return [e for b in blocks(file, sample) for e in b.energy]

        assert len(draw(0)) == 57
        assert draw(0) == draw(0)
        assert draw(0) != draw(1)


def test_a_sample_is_uniform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of 40 molecules is drawn in a quarter of 2000 samples, within five deviations."""
    path = tmp_path / "d.h5"
    with GroupedHDF5Writer(path) as writer:
        for n_atoms, first, n in ((1, 0, 25), (2, 25, 15)):
            coord = np.arange(n * n_atoms * 3).reshape(n, n_atoms, 3)
            energy = np.arange(first, first + n)
            numbers = np.ones((n, n_atoms))
            writer.append(n_atoms, {"coord": coord, "numbers": numbers, "energy": energy})
    monkeypatch.setattr(compositions, "BLOCK_MOLECULES", 9)
    hits = np.zeros(40)
    repeats = 2000
    with GroupedHDF5(path) as file:
        read = [compositions._read_block(file, g, r, None) for g, r in _rows(file)]
    for seed in range(repeats):
        draw = compositions._Draw(Sample(10, 40, seed))
        for block in read:
            hits[draw(block).energy.astype(int)] += 1
    deviation = np.sqrt(repeats * 0.25 * 0.75)
    assert hits.sum() == 10 * repeats
    assert np.abs(hits - repeats / 4).max() < 5 * deviation


def _rows(file: GroupedHDF5) -> list[tuple[Group, slice]]:
    return [
        (g, slice(s, min(s + 9, g.n_molecules)))
        for g in file.groups
        for s in range(0, g.n_molecules, 9)
    ]


def test_an_infinite_energy_is_named(tmp_path: Path) -> None:
    path = tmp_path / "d.h5"
    coord = np.arange(9.0).reshape(3, 1, 3)
    energy = np.array([1.0, np.nan, -np.inf])
    with GroupedHDF5Writer(path) as writer:
        writer.append(1, {"coord": coord, "numbers": np.ones((3, 1)), "energy": energy})
    with GroupedHDF5(path) as file, pytest.raises(DataError, match="molecule 2"):
        list(blocks(file))
