"""Which frames are taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.data.trajectories.frame_choice import choose_frames, frame_temperatures
from mlff_cli.data.trajectories.opening import open_trajectory
from tests.data.trajectory_cases import frames, write_npz

UNKNOWN = np.full(7, np.nan)
EXCHANGE = np.tile([300.0, 350.0, 400.0], 5)  # as replica exchange writes them


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    stride=st.integers(1, 9),
    seed=st.integers(0, 5),
    data=st.data(),
)
def test_rows_ascend_and_are_as_many_as_asked_for(
    lengths: list[int], stride: int, seed: int, data: st.DataObject
) -> None:
    temperatures = [np.full(n, np.nan) for n in lengths]
    every = choose_frames(temperatures, stride=stride)
    assert [r.tolist() for r in every] == [list(range(0, n, stride)) for n in lengths]
    total = sum(map(len, every))
    wanted = data.draw(st.integers(1, total))
    drawn = choose_frames(temperatures, stride=stride, frames=wanted, seed=seed)
    assert sum(map(len, drawn)) == wanted
    for some, of in zip(drawn, every, strict=True):
        assert set(some) <= set(of)
        assert (np.diff(some) > 0).all()


def test_a_stride_leaves_no_temperature_out() -> None:
    (rows,) = choose_frames([EXCHANGE], stride=3)
    assert rows.tolist() == [0, 1, 2, 9, 10, 11]
    (rows,) = choose_frames([EXCHANGE], stride=2, temperature=350.0)
    assert rows.tolist() == [1, 7, 13]


def test_every_frame_is_as_likely() -> None:
    n, k, trials = 10, 3, 4000
    counts = np.zeros(n)
    for seed in range(trials):
        (rows,) = choose_frames([np.full(n, np.nan)], frames=k, seed=seed)
        counts[rows] += 1
    p = k / n
    assert np.abs(counts / trials - p).max() < 5 * np.sqrt(p * (1 - p) / trials)


def test_what_is_not_there() -> None:
    with pytest.raises(DataError, match="no frame has 310 K, found 300, 350, 400 K"):
        choose_frames([EXCHANGE, UNKNOWN], temperature=310.0)
    with pytest.raises(DataError, match="no trajectory says its temperature"):
        choose_frames([UNKNOWN], temperature=310.0)
    with pytest.raises(UsageError, match="--frames 8 is more than there are: 7"):
        choose_frames([UNKNOWN], frames=8)


@pytest.mark.parametrize("value", [0.0, -300.0, np.inf])
def test_temperatures_are_above_0(tmp_path: Path, value: float) -> None:
    x, f = frames(5)
    kelvin = np.full(5, 300.0)
    write_npz(tmp_path / "a.npz", x, f, temperature=kelvin)
    with open_trajectory(tmp_path / "a.npz") as trajectory:
        np.testing.assert_array_equal(frame_temperatures(trajectory), kelvin)
    kelvin[3] = value
    write_npz(tmp_path / "a.npz", x, f, temperature=kelvin)
    with (
        open_trajectory(tmp_path / "a.npz") as trajectory,
        pytest.raises(DataError, match="a.npz, frame 3: temperatures are above 0 K, 1 of 5"),
    ):
        frame_temperatures(trajectory)
