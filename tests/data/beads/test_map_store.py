"""Maps kept in a file beside the output come back as they went in."""

from __future__ import annotations

import errno
import pickle
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from mlff_cli.core.errors import StorageError, UsageError
from mlff_cli.data.beads.map_store import Projected, map_store
from tests.data.cg_sets import chain


def test_arrays_come_back_in_any_order_here_and_elsewhere(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(n, 2 * n)) for n in (3, 1, 5)]
    with map_store(tmp_path / "cg.npz") as store:
        for array in arrays:
            store.append(array)
        assert len(store) == 3
        for k in (2, 0, 1, 2):
            np.testing.assert_array_equal(store[k], arrays[k])
            sent = pickle.dumps(store.places[k])
            assert len(sent) < 500
            np.testing.assert_array_equal(pickle.loads(sent).read(), arrays[k])
        store.append(arrays[0])  # after reading, still at the end
        np.testing.assert_array_equal(store[3], arrays[0])


@pytest.mark.parametrize("output", ["cg.npz", "new/folder/cg.npz"])
def test_the_file_is_hidden_beside_the_output_and_leaves_nothing(
    tmp_path: Path, output: str
) -> None:
    with suppress(KeyboardInterrupt), map_store(tmp_path / output) as store:
        store.append(np.ones(3))
        (found,) = tmp_path.iterdir()
        assert found.name.startswith(".cg.npz.")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="does not see the force maps") as caught:
        store.places[0].read()
    assert "all workers see" in str(caught.value)


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with map_store(tmp_path / "cg.npz") as store:
        monkeypatch.setattr("mlff_cli.data.beads.map_store.np.save", full)
        with pytest.raises(StorageError, match="No space left"):
            store.append(np.ones(3))


def test_molecules_get_their_maps(tmp_path: Path) -> None:
    molecules = [chain(3), chain(2)]
    with map_store(tmp_path / "cg.npz") as store:
        for molecule in molecules:
            store.append(np.full((molecule.n_beads, molecule.n_atoms), 2.0))
        for made, molecule in zip(Projected(molecules, store), molecules, strict=True):
            assert made.force_map is not None
            assert (made.force_map == 2.0).all()
            assert made.name == molecule.name
