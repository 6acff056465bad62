"""What a training file must not hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlff_cli.core.errors import DataError
from mlff_cli.data.dataset import FidelityDataset
from mlff_cli.data.grouped_hdf5 import GroupedHDF5
from mlff_cli.data.grouped_writer import write_grouped
from tests.synthetic import write_dataset


def molecule(**more: object) -> dict[str, object]:
    return {
        "coord": np.array([[0.0, 0, 0], [0, 0, 1]]),
        "numbers": np.array([1, 17]),
        "charge": 0.0,
        "mult": 1.0,
        "energy": -1.0,
        **more,
    }


def test_an_element_without_sae_is_named_with_fidelity_and_file(tmp_path: Path) -> None:
    path = tmp_path / "cl.h5"
    write_grouped(path, [molecule()], {})
    rule = r"cl\.h5, group 002, molecule 0: no self-atomic energy for Cl at fidelity 3"
    with pytest.raises(DataError, match=rule):
        FidelityDataset(path, 3, {1: -13.6}, ("energy",))


def test_a_file_without_any_label_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.h5"
    write_grouped(path, [molecule(energy=np.nan), molecule(energy=np.nan)], {})
    with pytest.raises(DataError, match="none of the labels energy, forces"):
        FidelityDataset(path, 0, {1: 0.0, 17: 0.0}, ("energy", "forces"))


def test_an_infinite_label_names_its_molecule(tmp_path: Path) -> None:
    path = tmp_path / "inf.h5"
    write_grouped(path, [molecule(), molecule(energy=np.inf)], {})
    with pytest.raises(DataError, match=r"group 002, molecule 1: 'energy' is infinite"):
        FidelityDataset(path, 0, {1: 0.0, 17: 0.0}, ("energy",))


def test_labels_are_counted(tmp_path: Path) -> None:
    write_dataset(tmp_path / "a.h5", 50, labels=("energy", "forces"), missing=0.5, seed=3)
    data = FidelityDataset(tmp_path / "a.h5", 0, None, ("energy", "forces", "charges"))
    assert 0 < data.label_counts["energy"] < 50
    assert data.label_counts["charges"] == 0
    assert len(data) == len(data.n_atoms) == 50
    assert data.species == [1, 6, 7, 8]


def test_hdf5_keeps_no_chunks_beside_ours(tmp_path: Path) -> None:
    write_dataset(tmp_path / "a.h5", 20)
    with GroupedHDF5(tmp_path / "a.h5") as file:
        arrays = [group._group[name] for group in file.groups for name in group.fields]
        kept = [array.id.get_access_plist().get_chunk_cache()[1] for array in arrays]
    assert arrays
    assert not any(kept)  # 8 MiB each would outgrow memory with a thousand open arrays
