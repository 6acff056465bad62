"""The trajectory that `mlff simulate` writes is a file of mlff: described, checked, converted."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest

from mlff_cli.core.artifacts import sha256
from mlff_cli.core.errors import CheckFailedError, DataError
from mlff_cli.data.trajectories.opening import holds_beads, open_trajectory
from mlff_cli.stages import check, convert, info
from mlff_cli.stages.simulate import Options, run
from tests.bead_chains import N, topology, write_model

SHORT = Options(steps=40, timestep=4.0, interval=0.04, replicas=2, friction=5.0, device="cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("beads")
    model = write_model(folder / "model.pt")
    run(model, None, folder / "chain.h5", SHORT)
    return folder


def test_it_says_beads_and_which_model(world: Path) -> None:
    summary = info.run(world / "chain.h5", info.Options(verify=True))
    facts = dict(summary.tables[0].rows)
    assert summary.data["kind"] == "trajectory of beads"
    assert facts["beads"] == str(N)
    assert "atoms" not in facts
    assert facts["types of beads"] == ", ".join(sorted(set(topology().types)))
    assert facts["model"] == str(world / "model.pt")
    assert facts["SHA-256 of the model"] == sha256(world / "model.pt")
    assert [c["result"] for c in summary.data["verified"]] == [info.SAME]


def test_another_model_at_its_path_is_found(world: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.pt")
    run(model, None, tmp_path / "chain.h5", SHORT)
    model.unlink()
    write_model(model, allegro=True)
    with pytest.raises(CheckFailedError, match=r"model\.pt"):
        info.run(tmp_path / "chain.h5", info.Options(verify=True))


def test_it_is_checked(world: Path) -> None:
    summary = check.run([world / "chain.h5"])
    told = str(summary.tables)
    assert f"frames of {N} beads, with forces" in told
    assert "failed" not in told


def test_it_is_converted_with_its_beads(world: Path, tmp_path: Path) -> None:
    convert.run([world / "chain.h5", world / "chain.h5"], tmp_path / "two.h5", convert.Options())
    with (
        open_trajectory(world / "chain.h5", of_beads=True) as one,
        open_trajectory(tmp_path / "two.h5", either=True) as two,
    ):
        assert holds_beads(two)
        assert two.n_frames == 2 * one.n_frames
        rows = np.arange(one.n_frames)
        for name in ("positions", "forces"):
            mine = getattr(one.read(rows, forces=True), name)
            theirs = getattr(two.read(rows, forces=True), name)
            np.testing.assert_allclose(theirs, mine, rtol=1e-6)


def test_beads_of_other_types_are_not_joined(world: Path, tmp_path: Path) -> None:
    other = dataclasses.replace(topology(), types=topology().types[::-1])
    model = write_model(tmp_path / "other.pt", [other])
    run(model, None, tmp_path / "other.h5", SHORT)
    with pytest.raises(DataError, match="found other beads"):
        convert.run(
            [world / "chain.h5", tmp_path / "other.h5"], tmp_path / "two.h5", convert.Options()
        )


def test_beads_are_no_atoms(world: Path, tmp_path: Path) -> None:
    """What needs atoms refuses them; a list of another length says nothing of the frames."""
    with pytest.raises(DataError, match="trajectory of atoms is needed, this one holds beads"):
        open_trajectory(world / "chain.h5")
    with pytest.raises(DataError, match="leave out --top"):
        open_trajectory(world / "chain.h5", world / "any.pdb", either=True)
    copy = tmp_path / "copy.h5"
    copy.write_bytes((world / "chain.h5").read_bytes())
    with h5py.File(copy, "r+") as file:
        file.attrs["beads"] = '["A"]'
    with pytest.raises(DataError, match="bonds are not 0.5 to 3.0 angstrom"):
        open_trajectory(copy, either=True)
