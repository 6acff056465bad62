"""Where simulations of beads start: which molecule, which frames, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.deploy.beads.start import Known, find_start
from mlff_cli.sampling.beads.run import pdb_of
from tests.bead_chains import MASSES, N, stretched, topology, write_set


def known(*sizes: int, only: bool = False) -> Known:
    molecules = [topology(n, f"chain_{k}") for k, n in enumerate(sizes or (N,))]
    return Known([m.plain() for m in molecules], "model.pt", only)


def test_without_a_structure_the_models_own_frame_is_taken() -> None:
    found = find_start(known(), None, None, "first", 3, 0)
    np.testing.assert_array_equal(found.positions, np.repeat(stretched(1), 3, axis=0))
    np.testing.assert_array_equal(found.topology.masses, MASSES)
    named = find_start(known(4, 5), None, "chain_1", "first", 1, 0)
    assert named.topology.n_beads == 5
    with pytest.raises(UsageError, match=r"there are 2 molecules: chain_0, chain_1"):
        find_start(known(4, 5), None, None, "first", 1, 0)
    with pytest.raises(UsageError, match="no molecule is called 'x'"):
        find_start(known(4, 5), None, "x", "first", 1, 0)


def test_frames_of_a_set(tmp_path: Path) -> None:
    """Frame k of the set is moved by k angstrom, so that it tells which one it is."""
    path = write_set(tmp_path / "cg.npz", (4, N), n_frames=5)
    first = find_start(known(4, N), path, "chain_1", "first", 3, 0)
    assert np.round(first.positions.mean((1, 2)) - first.positions[0].mean()).tolist() == [0] * 3
    np.testing.assert_array_equal(first.topology.masses, MASSES)  # the model's, not the set's
    assert not [n for n in first.notes if "trained on" in n]
    drawn = [
        np.round(find_start(known(4, N), path, "chain_1", "random", b, s).positions[:, 0, 1])
        for b, s in ((5, 0), (5, 0), (5, 1), (40, 0))
    ]
    assert sorted(drawn[0]) == [0, 1, 2, 3, 4]  # none twice
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert drawn[0].tolist() != drawn[2].tolist()
    assert set(drawn[3]) == {0, 1, 2, 3, 4}
    kept = find_start(known(N), path, None, "model", 1, 0)
    np.testing.assert_array_equal(kept.positions, stretched(1))


def test_molecules_outside_the_training_set(tmp_path: Path) -> None:
    path = write_set(tmp_path / "cg.npz", (9,))
    found = find_start(known(), path, None, "first", 1, 0)
    assert found.topology.n_beads == 9
    assert any("no molecule that the model was trained on" in note for note in found.notes)
    with pytest.raises(DataError, match=r"the artifact is of 'chain_0' \(6 beads\)"):
        find_start(known(only=True), path, None, "first", 1, 0)


def test_a_pdb_file_of_beads(tmp_path: Path) -> None:
    path, top = tmp_path / "beads.pdb", topology()
    x = stretched(1, seed=5)
    path.write_text(pdb_of(top, x[0]))
    found = find_start(known(4, N), path, None, "first", 2, 0)
    np.testing.assert_allclose(found.positions, np.repeat(x, 2, axis=0), atol=6e-4)
    assert found.topology.name == "chain_1"
    assert not found.notes
    path.write_text(pdb_of(top, x[0]).replace("GLY", "LYS"))
    assert "called otherwise" in find_start(known(), path, None, "first", 1, 0).notes[0]
    with pytest.raises(DataError, match=r"found 6; the model has chain_0 \(4\), chain_1 \(9\)"):
        find_start(known(4, 9), path, None, "first", 1, 0)
    with pytest.raises(DataError, match="'chain_0' has 4 beads, the structure 6"):
        find_start(known(4, N), path, "chain_0", "first", 1, 0)


def test_what_is_no_structure(tmp_path: Path) -> None:
    path = tmp_path / "beads.txt"
    path.write_text("nothing")
    with pytest.raises(UsageError, match="a structure is a CG NPZ"):
        find_start(known(), path, None, "first", 1, 0)
    with pytest.raises(DataError, match="does not exist"):
        find_start(known(), tmp_path / "absent.pdb", None, "first", 1, 0)
    with pytest.raises(DataError, match="does not exist"):
        find_start(known(), tmp_path / "absent.h5", None, "first", 1, 0)


def test_beads_of_another_mapping_are_told(tmp_path: Path) -> None:
    path = write_set(tmp_path / "cg.npz", metadata={"mapping": "cacb"})
    for mapping, told in (("ca", 1), ("cacb", 0), ("unknown", 0)):
        model = dataclasses.replace(known(), prior={"mapping": mapping})
        notes = [n for n in find_start(model, path, None, "first", 1, 0).notes if "mapping" in n]
        assert len(notes) == told
        assert all("'ca'" in n and "'cacb'" in n for n in notes)
