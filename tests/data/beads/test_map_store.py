"""Maps kept in a file come back as they went in."""

from __future__ import annotations

from contextlib import closing

import numpy as np

from mlff_cli.data.beads.map_store import MapStore, Projected
from tests.data.cg_sets import chain


def test_arrays_come_back_in_any_order() -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(n, 2 * n)) for n in (3, 1, 5)]
    with closing(MapStore()) as store:
        for array in arrays:
            store.append(array)
        assert len(store) == 3
        for k in (2, 0, 1, 2):
            np.testing.assert_array_equal(store[k], arrays[k])
        store.append(arrays[0])  # after reading, still at the end
        np.testing.assert_array_equal(store[3], arrays[0])


def test_molecules_get_their_maps() -> None:
    molecules = [chain(3), chain(2)]
    with closing(MapStore()) as store:
        for molecule in molecules:
            store.append(np.full((molecule.n_beads, molecule.n_atoms), 2.0))
        for made, molecule in zip(Projected(molecules, store), molecules, strict=True):
            assert made.force_map is not None
            assert (made.force_map == 2.0).all()
            assert made.name == molecule.name
