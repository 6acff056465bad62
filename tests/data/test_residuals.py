"""Residual energies tell atomic energies of the right method from those of another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlff_cli.data.dataset import FidelityDataset
from mlff_cli.data.residuals import Residuals, residuals
from tests.synthetic import self_energy, write_dataset

ELEMENTS = (1, 6, 7, 8)
SAE = {z: float(self_energy(z)) for z in ELEMENTS}
VALENCE = {z: e / 20 for z, e in SAE.items()}  # as a semi-empirical method has them


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FidelityDataset:
    path = write_dataset(tmp_path_factory.mktemp("data") / "a.h5", 300, seed=3)
    return FidelityDataset(path, 0, None, ("energy",))


def found(data: FidelityDataset, sae: dict[int, float], **others: dict[int, float]) -> Residuals:
    result = residuals(data, sae, dict(enumerate(others.values(), start=1)))
    assert result is not None
    return result


def test_they_are_energies_less_those_of_the_atoms(data: FidelityDataset) -> None:
    expected = []
    for group in data.groups:
        numbers, energy = group.read("numbers"), group.read("energy")
        expected += [
            e - sum(SAE[int(z)] for z in row) for e, row in zip(energy, numbers, strict=True)
        ]
    own = found(data, SAE)
    assert own.molecules == 300
    assert own.mean == pytest.approx(np.mean(expected))
    assert own.std == pytest.approx(np.std(expected))
    assert own.rms == pytest.approx(np.hypot(own.mean, own.std))


def test_a_fit_leaves_least_and_knows_no_reference(data: FidelityDataset) -> None:
    own, other = found(data, SAE), found(data, VALENCE)
    assert own.fitted <= own.rms
    assert other.fitted == pytest.approx(own.fitted, rel=1e-6)


def test_bound_atoms_are_no_warning_and_another_method_is(data: FidelityDataset) -> None:
    own = found(data, SAE, other=VALENCE)
    assert not own.huge
    assert own.better is None
    swapped = found(data, VALENCE, other=SAE)
    assert swapped.huge
    assert swapped.better == 1
    assert swapped.rivals[1] == pytest.approx(own.rms)
    lacking = found(data, VALENCE, other={1: SAE[1]})
    assert lacking.better is None
    assert lacking.huge


def test_a_sample_is_spread_over_all_sizes(data: FidelityDataset) -> None:
    few = residuals(data, SAE, {}, sample=50)
    assert few is not None
    assert few.molecules == 50
    assert few.rms == pytest.approx(found(data, SAE).rms, rel=0.3)


def test_without_energies_there_is_nothing_to_say(tmp_path: Path) -> None:
    path = write_dataset(tmp_path / "a.h5", 10, labels=("forces",))
    data = FidelityDataset(path, 0, None, ("energy", "forces"))
    assert residuals(data, SAE, {}) is None
    partly = write_dataset(tmp_path / "b.h5", 40, seed=1, missing=0.5)
    some = residuals(FidelityDataset(partly, 0, None, ("energy",)), SAE, {})
    assert some is not None
    assert some.molecules < 40
    assert np.isfinite(some.rms)
