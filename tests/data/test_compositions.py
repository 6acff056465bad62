"""Blocks hold what the file holds; samples are uniform and repeatable."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlff_cli.core.errors import DataError
from mlff_cli.data import compositions
from mlff_cli.data.compositions import Draw, Sample, count_elements, pieces, read_block
from mlff_cli.data.grouped_hdf5 import GroupedHDF5
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
        for piece in pieces(file):
            assert 0 < piece.stop - piece.start <= 7
            block = read_block(file, piece)
            total[block.elements] += block.counts.sum(axis=1)
            energies.append(block.energy)
        stored = [(g.read("energy"), g.read("numbers")) for g in file.groups]
    labelled = np.concatenate([e[np.isfinite(e)] for e, _ in stored])
    np.testing.assert_array_equal(np.concatenate(energies), labelled)
    numbers = np.concatenate([z[np.isfinite(e)].ravel() for e, z in stored])
    np.testing.assert_array_equal(total, np.bincount(numbers, minlength=119))


def test_what_is_known_changes_nothing_but_the_elements(tmp_path: Path) -> None:
    with GroupedHDF5(write_dataset(tmp_path / "d.h5", 100)) as file:
        for piece in pieces(file):
            first = read_block(file, piece)
            again = read_block(file, piece, known=np.array([1, 6, 7, 8, 9, 16, 17, 35]))
            rows = np.isin(again.elements, first.elements)
            np.testing.assert_array_equal(again.counts[rows], first.counts)
            assert not again.counts[~rows].any()


@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=8),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_a_sample_has_its_size_and_comes_again(sizes: list[int], share: float, seed: int) -> None:
    sample = Sample(int(share * sum(sizes)), sum(sizes), seed)
    masks = [list(map(Draw(sample), sizes)) for _ in range(2)]
    assert [len(mask) for mask in masks[0]] == sizes
    assert sum(int(mask.sum()) for mask in masks[0]) == sample.size
    np.testing.assert_array_equal(np.concatenate(masks[0]), np.concatenate(masks[1]))


def test_a_sample_is_uniform() -> None:
    """Each of 40 molecules is drawn in a quarter of 2000 samples, within five deviations."""
    hits = np.zeros(40)
    repeats = 2000
    for seed in range(repeats):
        hits += np.concatenate(list(map(Draw(Sample(10, 40, seed)), (9, 9, 7, 9, 6))))
    deviation = np.sqrt(repeats * 0.25 * 0.75)
    assert hits.sum() == 10 * repeats
    assert np.abs(hits - repeats / 4).max() < 5 * deviation


def test_an_infinite_energy_is_named(tmp_path: Path) -> None:
    path = tmp_path / "d.h5"
    coord = np.arange(9.0).reshape(3, 1, 3)
    energy = np.array([1.0, np.nan, -np.inf])
    with GroupedHDF5Writer(path) as writer:
        writer.append(1, {"coord": coord, "numbers": np.ones((3, 1)), "energy": energy})
    with GroupedHDF5(path) as file, pytest.raises(DataError, match="molecule 2"):
        [read_block(file, piece) for piece in pieces(file)]
