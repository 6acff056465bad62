"""Batches hold exactly what the files hold, whatever is mixed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mlff_cli.core.fields import FIELDS
from mlff_cli.data.batching import Collator
from mlff_cli.data.dataset import FidelityDataset
from mlff_cli.data.grouped_hdf5 import GroupedHDF5
from tests.synthetic import self_energy
from tests.tiny_training import ELEMENTS, write_fidelities

LABELS = ("energy", "forces", "charges", "spin_charges")
SAE = {z: float(self_energy(z)) for z in ELEMENTS}


@pytest.fixture
def datasets(tmp_path: Path) -> list[FidelityDataset]:
    write_fidelities(tmp_path, missing=0.3)
    return [FidelityDataset(tmp_path / f"fid{k}.h5", k, SAE, LABELS) for k in range(3)]


def some(datasets: list[FidelityDataset], n: int = 30) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    fidelity = rng.integers(0, 3, n)
    index = np.array([rng.integers(len(datasets[k])) for k in fidelity])
    return fidelity, index


def test_every_molecule_of_a_batch_is_what_its_file_holds(datasets: list[FidelityDataset]) -> None:
    batch = Collator(datasets, LABELS, offset=200)(*some(datasets))
    t = batch.tensors
    for b, (k, i) in enumerate(zip(batch.fidelity, batch.index, strict=True)):
        _, name, row = datasets[k].reference(int(i))
        with GroupedHDF5(datasets[k].paths[0]) as file:
            group = next(g for g in file.groups if g.name == name)
            n = group.n_atoms
            numbers = group.read("numbers", slice(row, row + 1))[0]
            assert int(t["n_atoms"][b]) == n
            assert int(t["fidelity"][b]) == k
            np.testing.assert_array_equal(t["numbers"][b, :n], numbers + 200 * k)
            assert not t["numbers"][b, n:].any()
            for field in ("coord", "charge", "mult", *LABELS):
                stored = group.read(field, slice(row, row + 1))[0]
                found = t[field][b].numpy()
                per_atom = "N" in FIELDS[field].dims
                if field in LABELS:
                    assert bool(t[f"{field}_mask"][b]) == (not np.isnan(stored).any())
                    if np.isnan(stored).any():
                        assert not found.any()
                        continue
                if field == "energy":
                    stored = stored - sum(SAE[int(z)] for z in numbers)
                    assert found == pytest.approx(stored, abs=1e-9)
                    continue
                np.testing.assert_array_equal(found[:n] if per_atom else found, stored)
                assert not per_atom or not found[n:].any()


def test_residual_energies_are_float64(datasets: list[FidelityDataset]) -> None:
    batch = Collator(datasets, LABELS, offset=200, dtype=torch.float32)(*some(datasets))
    assert batch.tensors["energy"].dtype == torch.float64
    assert batch.tensors["forces"].dtype == torch.float32


def test_labels_that_nobody_has_are_said_to_be_absent(datasets: list[FidelityDataset]) -> None:
    batch = Collator(datasets, LABELS, offset=200)(np.full(20, 2), np.arange(20))
    assert batch.labels == {"energy"}
    assert not batch.tensors["forces_mask"].any()


def test_rows_read_from_disk_are_those_in_memory(
    tmp_path: Path, datasets: list[FidelityDataset]
) -> None:
    lazy = [FidelityDataset(d.paths, d.fidelity, SAE, LABELS, in_memory_bytes=0) for d in datasets]
    assert not lazy[0].in_memory
    assert datasets[0].in_memory
    picks = some(datasets)
    kept, read = (Collator(d, LABELS, offset=200)(*picks).tensors for d in (datasets, lazy))
    for name, tensor in kept.items():
        assert torch.equal(tensor, read[name]), name
    for d in lazy:
        d.close()


def test_molecules_are_named_for_error_messages(datasets: list[FidelityDataset]) -> None:
    collator = Collator(datasets, LABELS, offset=200)
    text = collator.name_molecules(np.array([2] * 10), np.arange(10))
    assert "fidelity 2 group 003 molecule 0" in text
    assert text.endswith("and 2 more")
