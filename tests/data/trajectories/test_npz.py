"""NPZ {R, F, Z}: units, layouts, and memory that does not grow with the frames."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mlff_cli.core.errors import DataError
from mlff_cli.data.trajectories.frames import Frames
from mlff_cli.data.trajectories.npz import write_trajectory_npz
from mlff_cli.data.trajectories.opening import open_trajectory
from tests.data.trajectory_cases import N, Z, frames, write_npz

X, F = frames(12)


def test_a_round_trip_loses_nothing(tmp_path: Path) -> None:
    box = np.tile(np.eye(3) * 25.0, (12, 1, 1))
    made = Frames(
        np.arange(12), X, F, box, np.full(12, 310.0), np.linspace(-3, 4, 12), np.arange(12.0) * 5
    )
    pieces = [
        Frames(*(np.array_split(getattr(made, name), 3)[k] for name in made.__dataclass_fields__))
        for k in range(3)
    ]
    for name in ("a.npz", "b.npz"):
        assert write_trajectory_npz(tmp_path / name, pieces, Z, {"note": "x"}) == 12
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with open_trajectory(tmp_path / "a.npz") as trajectory:
        found = trajectory.read(np.arange(12), forces=True)
        assert trajectory.facts["note"] == "x"
        assert not trajectory.notes
    for name in made.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(found, name), getattr(made, name), err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_stored_and_compressed_members(tmp_path: Path, save, dtype: str) -> None:
    x = X.astype(dtype)
    save(tmp_path / "a.npz", R=x, F=np.asfortranarray(F), z=Z)
    with open_trajectory(tmp_path / "a.npz") as trajectory:
        for rows in ([0, 5, 6], [1], [0, 11]):
            found = trajectory.read(np.array(rows), forces=True)
            assert found.positions is not None
            assert found.positions.dtype == dtype
            np.testing.assert_array_equal(found.positions, x[rows])
            np.testing.assert_array_equal(found.forces, F[rows])


def test_units(tmp_path: Path) -> None:
    def read(**more) -> tuple[Frames, list[str]]:
        path = write_npz(tmp_path / "a.npz", X / 10, F * 41.84, **more)
        with open_trajectory(path) as trajectory:
            return trajectory.read(np.arange(12), forces=True), list(trajectory.notes)

    units = json.dumps({"units": {"R": "nm", "F": "kJ mol-1 nm-1"}})
    for found, notes in (
        read(metadata=np.array(units)),
        read(r_unit=np.array("nm"), e_unit=np.array("kJ/mol")),
    ):
        np.testing.assert_allclose(found.positions, X, rtol=1e-5)
        np.testing.assert_allclose(found.forces, F, rtol=1e-5)
        assert not notes
    found, notes = read()
    np.testing.assert_array_equal(found.positions, X / 10)
    assert [n for n in notes if "names no units" in n] == [notes[0]]
    with pytest.raises(DataError, match="furlong"):
        read(metadata=np.array(json.dumps({"units": {"R": "furlong"}})))
    with pytest.raises(DataError, match="metadata"):
        read(metadata=np.array("not json"))


def test_arrays_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    wrong = {
        "needs 'R'": {"coords": X},
        r"'R' must have shape": {"R": X[..., 0]},
        r"'F' must have shape \(12, 22, 3\)": {"R": X, "F": F[:5]},
        r"'Z' must have shape \(22\)|'Z' must have shape \(22,?\)": {"R": X, "Z": Z[:5]},
        "hold numbers": {"R": np.full((2, 3, 3), "x")},
        "pickled": {"R": X, "F": np.full((12, N, 3), None)},
    }
    for match, arrays in wrong.items():
        np.savez(path, **arrays)
        with pytest.raises(DataError, match=match) as caught:
            open_trajectory(path)
        assert "a.npz" in str(caught.value)
