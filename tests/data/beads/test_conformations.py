"""Frames of sets and trajectories come as series in time, of one temperature."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.data.beads import conformations as module
from mlff_cli.data.beads.cg_npz import CGBlock, CGSet
from mlff_cli.data.beads.cg_writer import write_cg
from mlff_cli.data.beads.conformations import (
    Conformations,
    conformations_of_set,
    conformations_of_trajectory,
)
from mlff_cli.data.trajectories.h5md_writer import H5MDWriter, create_h5md
from mlff_cli.data.trajectories.opening import open_trajectory
from tests.data.cg_sets import SOURCES, chain

N = 4


def positions(frames: int) -> np.ndarray:
    """Frame t holds t in its first coordinate, in angstrom."""
    x = np.random.default_rng(0).normal(size=(frames, N, 3)) + np.arange(N)[:, None] * 3.8
    x[:, 0, 0] = np.arange(frames)
    return x


def simulation(
    path: Path, time: np.ndarray, temperature: np.ndarray | None = None, n: int = N
) -> Path:
    told = {} if temperature is None else {"temperature": temperature}
    create_h5md(path, ["position", *told], len(time), np.full(n, 6), dtype="float64")
    x = positions(len(time))[:, :n] / 10
    with H5MDWriter(path) as writer:
        step = np.round(time * 100).astype(int)
        writer.write(0, {"step": step, "time": time, "position": x, **told})
    return path


def numbers(found: Conformations) -> list[list[int]]:
    """Frames of every series, by what they hold."""
    x = np.concatenate(list(found.blocks()))
    ends = np.cumsum(found.lengths)[:-1]
    return [[round(float(v)) for v in s] for s in np.split(found.series(x[:, 0, 0]), ends)]


def test_replicas_of_one_step_are_series(tmp_path: Path) -> None:
    path = simulation(tmp_path / "s.h5", np.repeat([1.0, 2.0, 3.0, 4.0], 3))
    with open_trajectory(path, of_beads=True) as trajectory:
        found = conformations_of_trajectory(trajectory, N, None)
        assert numbers(found) == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
        assert (found.spacing, found.timed) == (1.0, True)
        late = conformations_of_trajectory(trajectory, N, None, discard=2.0)
        assert numbers(late) == [[6, 9], [7, 10], [8, 11]]
        with pytest.raises(UsageError, match="no frame is left after 9 ps"):
            conformations_of_trajectory(trajectory, N, None, discard=9.0)


def test_one_temperature_of_an_exchange_is_taken(tmp_path: Path) -> None:
    kelvin = np.tile([300.0, 350.0], 4)
    path = simulation(tmp_path / "s.h5", np.repeat([1.0, 2.0, 3.0, 4.0], 2), kelvin)
    with open_trajectory(path, of_beads=True) as trajectory:
        found = conformations_of_trajectory(trajectory, N, 350.0)
        assert numbers(found) == [[1, 3, 5, 7]]
        assert found.kelvin == 350.0
        with pytest.raises(UsageError, match="one temperature is needed"):
            conformations_of_trajectory(trajectory, N, None)
        with pytest.raises(UsageError, match="no frame has the temperature 400 K"):
            conformations_of_trajectory(trajectory, N, 400.0)


def test_another_number_of_beads_is_refused_and_atoms_are_mapped(tmp_path: Path) -> None:
    path = simulation(tmp_path / "s.h5", np.arange(5.0))
    with open_trajectory(path, of_beads=True) as trajectory:
        with pytest.raises(DataError, match="trajectory of 2 beads is needed, found 4"):
            conformations_of_trajectory(trajectory, 2, None)
        halves = conformations_of_trajectory(trajectory, 2, None, lambda x, _: x[:, ::2])
        assert next(halves.blocks()).shape == (5, 2, 3)


def test_many_frames_are_thinned_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FRAMES", 5)
    path = simulation(tmp_path / "s.h5", np.repeat(np.arange(8.0), 2))
    with open_trajectory(path, of_beads=True) as trajectory:
        found = conformations_of_trajectory(trajectory, N, None)
    assert found.lengths == (2, 2)
    assert found.spacing == 4.0
    assert "one of 4 of each" in found.notes[0]


def written(path: Path, source: list[int], frame: list[int], kelvin: list[float]) -> Path:
    x = positions(len(frame)).astype(np.float32)
    told = (np.array(source, np.int32), np.array(frame), np.array(kelvin, np.float32))
    write_cg(path, [chain(N)], ["A", "B", "C"], SOURCES * 2, {},
             [CGBlock(0, x, *told)])  # fmt: skip
    return path


def test_frames_of_a_set_are_series_by_source_and_row(tmp_path: Path) -> None:
    path = written(tmp_path / "c.npz", [1, 0, 1, 0, 0], [4, 9, 2, 3, 6], [300.0] * 5)
    with CGSet(path) as cg:
        found = conformations_of_set(cg, 0, None)
        assert numbers(found) == [[3, 4, 1], [2, 0]]
        assert found.spacing is None  # three rows in one, two in the other
        assert found.kelvin == 300.0
        with pytest.raises(DataError, match="molecule 1 has no frame"):
            conformations_of_set(cg, 1, None)


def test_a_set_of_several_temperatures_needs_one(tmp_path: Path) -> None:
    path = written(tmp_path / "c.npz", [0] * 4, [0, 1, 2, 3], [300.0, 350.0] * 2)
    with CGSet(path) as cg:
        with pytest.raises(UsageError, match="--temperature 300"):
            conformations_of_set(cg, 0, None)
        found = conformations_of_set(cg, 0, 350.0)
        assert numbers(found) == [[1, 3]]
        assert (found.spacing, found.timed) == (2.0, False)
