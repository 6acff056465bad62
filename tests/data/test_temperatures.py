"""One rule for what one temperature is, whoever asks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlff_cli.coarse.checklist import check_set
from mlff_cli.coarse.forces.force_inputs import ensemble_temperature
from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.data.beads.cg_npz import CGSet
from mlff_cli.data.beads.cg_temperatures import rows_of_temperature
from mlff_cli.data.beads.cg_writer import write_cg
from mlff_cli.data.beads.force_rows import rows_of_molecules
from mlff_cli.data.descriptions import describe_set
from mlff_cli.data.temperatures import SAME, Temperatures
from mlff_cli.data.trajectories.frame_choice import choose_frames
from tests.data.cg_sets import SOURCES, block, chain

KELVIN = st.one_of(st.just(float("nan")), st.floats(1.0, 1e4, width=32))


@given(st.lists(KELVIN, max_size=40), st.randoms(use_true_random=False))
def test_every_frame_is_of_one_temperature_whatever_their_order(
    told: list[float], rng: Random
) -> None:
    values = np.array(told)
    found = Temperatures.of(values)
    assert (np.diff(found.kelvin) > SAME - 0.01).all()  # rounded
    np.testing.assert_array_equal(found.group < 0, np.isnan(values))
    chosen = [found.rows(t) for t in found.kelvin]
    assert sum(map(len, chosen)) + found.n_unknown == len(values)
    order = list(range(len(told)))
    rng.shuffle(order)
    again = Temperatures.of(values[order])
    assert again.kelvin == found.kelvin
    np.testing.assert_array_equal(again.group, found.group[order])


# 310.15 K as float32 has it, thermostats that say 310.1 and 310.2, and another replica
TOLD = np.array([310.15, 310.1, 310.2, 325.0], np.float32)


def written(path: Path, told: np.ndarray) -> Path:
    frames = dataclasses.replace(block(0, 3, len(told)), temperature=told)
    write_cg(path, [chain(3)], ["A", "B", "C"], SOURCES, {}, [frames])
    return path


@pytest.mark.parametrize("asked", [310.15, 310.0, 310.6])
def test_all_who_choose_choose_the_same_frames(tmp_path: Path, asked: float) -> None:
    (of_trajectory,) = choose_frames([TOLD], temperature=asked)
    with CGSet(written(tmp_path / "all.npz", TOLD)) as cg:
        of_set = rows_of_temperature(cg, asked).rows
    assert of_trajectory.tolist() == of_set.tolist() == [0, 1, 2]
    # what was chosen is one temperature for those who need one
    with CGSet(written(tmp_path / "some.npz", TOLD[:3])) as cg:
        assert len(rows_of_temperature(cg, None).rows) == 3
        kelvin, notes = ensemble_temperature(rows_of_molecules(cg)[0], "m", 0.1, asked)
        (said,) = [c for c in check_set(cg, lambda n: None) if c.name == "temperature"]
    assert (kelvin, notes) == (310.15, [])
    assert (said.finding, said.verdict) == ("310.15 K", "ok")
    assert describe_set(tmp_path / "some.npz").facts["temperatures"] == "310.15 K"


def test_a_stride_takes_its_share_of_a_thermostat_that_wavers() -> None:
    told = 300.0 + np.tile([0.0, 0.1, -0.1, 0.02], 10)
    (rows,) = choose_frames([told], stride=4)
    assert rows.tolist() == list(range(0, 40, 4))


@pytest.mark.parametrize("asked", [309.0, 317.0, 330.0])
def test_what_is_farther_is_another_temperature(tmp_path: Path, asked: float) -> None:
    with pytest.raises(DataError, match="found 310.15, 325 K"):
        choose_frames([TOLD], temperature=asked)
    with CGSet(written(tmp_path / "cg.npz", TOLD[:3])) as cg:
        rows = rows_of_molecules(cg)[0]
        with pytest.raises(UsageError, match="contradicts the set, whose frames are at 310.15 K"):
            ensemble_temperature(rows, "m", 0.1, asked)
        with pytest.raises(UsageError, match="the set has 310.15 K"):
            rows_of_temperature(cg, asked)
