"""The first frames of a file are the file's, and its texts and tables with them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from mlff_cli.data.trajectories import h5md_cut
from mlff_cli.data.trajectories.h5md import H5MDTrajectory
from mlff_cli.data.trajectories.h5md_cut import write_first_frames
from mlff_cli.data.trajectories.h5md_writer import H5MDWriter, create_h5md


@pytest.mark.parametrize("n", [1, 3, 7])
def test_first_frames_of_a_file_that_is_not_full(
    n: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(h5md_cut, "CHUNK_BYTES", 300)  # several pieces
    rng = np.random.default_rng(0)
    arrays = {
        "step": np.arange(8) * 10,
        "time": np.arange(8) * 0.02,
        "position": rng.normal(size=(8, 4, 3)).astype("float32"),
        "force": rng.normal(size=(8, 4, 3)).astype("float32"),
        "temperature": rng.uniform(300, 400, 8),
        "replica": np.arange(8) % 2,
    }
    source, output = tmp_path / "whole.h5", tmp_path / "cut.h5"
    create_h5md(
        source, arrays, 20, np.full(4, 6), bonds=np.array([[0, 1]]),
        attrs={"seed": 3, "timestep_fs": 2.0, "topology_pdb": "ATOM", "list": [1, 2]},
        tables={"temperatures": np.array([300.0]), "exchange/trips": np.array([4])},
    )  # fmt: skip
    with H5MDWriter(source) as writer:
        writer.write(0, arrays)
    write_first_frames(source, output, n)
    with h5py.File(source) as before, h5py.File(output) as after:
        for group in ("particles/all/position", "particles/all/force", "observables/temperature"):
            for name in ("value", "step", "time"):
                np.testing.assert_array_equal(
                    after[f"{group}/{name}"][()], before[f"{group}/{name}"][:n]
                )
        assert dict(after.attrs) == dict(before.attrs)
        assert after["parameters/exchange/trips"][()].tolist() == [4]
        assert after["connectivity/bonds"][()].tolist() == [[0, 1]]
        del before, after
    with H5MDTrajectory(_without_topology(output)) as trajectory:
        assert trajectory.n_frames == n
        assert trajectory.facts["seed"] == 3


def _without_topology(path: Path) -> Path:
    with h5py.File(path, "a") as file:
        del file.attrs["topology_pdb"]
    return path
