"""Rigid groups: what each source says, and what happens where they contradict each other."""

from __future__ import annotations

import numpy as np
import pytest

from mlff_cli.coarse.forces.constraints import Constraints, detect_constraints
from mlff_cli.coarse.forces.rigid_groups import (
    against_record,
    auto_groups,
    listed_groups,
    no_groups,
    topology_groups,
)

# ethane: C0 C1, hydrogens 2-4 on C0 and 5-7 on C1
ELEMENTS = np.array([6, 6, 1, 1, 1, 1, 1, 1])
BONDS = np.array([[0, 1], [0, 2], [0, 3], [0, 4], [1, 5], [1, 6], [1, 7]])
METHYLS = [0, 1, 0, 0, 0, 1, 1, 1]
FREE = list(range(8))


def moving(rigid: bool, *, step: float = 0.0, n: int = 60) -> Constraints:
    """What is detected in frames whose bonds to hydrogen keep their length, or do not."""
    rng = np.random.default_rng(0)
    x = np.zeros((n, 8, 3))
    x[:, :2] = rng.normal(0.0, 0.3, (n, 2, 3)) + [[0, 0, 0], [1.5, 0, 0]]
    away = rng.normal(size=(n, 6, 3))
    away *= 1.09 / np.linalg.norm(away, axis=-1, keepdims=True)
    if not rigid:
        away *= 1.0 + rng.normal(0.0, 0.03, (n, 6, 1))
    x[:, 2:] = np.repeat(x[:, :2], 3, axis=1) + away
    if step:
        x = np.round(x / step) * step
    return detect_constraints(x, ELEMENTS, BONDS)


@pytest.mark.parametrize(
    ("rigid", "recorded", "groups", "warned"),
    [
        (True, [], METHYLS, False),
        (False, [], FREE, False),
        (True, ["hbonds"], METHYLS, False),
        (False, ["none"], FREE, False),
        (True, ["none"], METHYLS, True),
        (False, ["hbonds"], METHYLS, True),
        (True, ["none", "hbonds"], METHYLS, False),
        (False, ["allbonds"], FREE, True),
    ],
)
def test_motion_and_record(
    rigid: bool, recorded: list[str], groups: list[int], warned: bool
) -> None:
    found = auto_groups(ELEMENTS, BONDS, moving(rigid), recorded)
    assert found.groups.tolist() == groups
    assert bool(found.notes) == warned
    assert found.from_topology == 6
    assert found.from_trajectory == (6 if rigid else 0)


def test_rounded_coordinates_rely_on_the_topology_or_the_record() -> None:
    hidden = moving(False, step=0.1)
    assert auto_groups(ELEMENTS, BONDS, hidden, []).groups.tolist() == METHYLS
    found = auto_groups(ELEMENTS, BONDS, hidden, ["none"])
    assert found.groups.tolist() == FREE
    assert "record" in found.relied_on
    assert found.from_trajectory is None
    assert not found.notes


def test_choices_without_positions() -> None:
    assert topology_groups(ELEMENTS, BONDS).groups.tolist() == METHYLS
    assert no_groups(8).groups.tolist() == FREE
    listed = listed_groups(8, np.array([[6, 7], [7, 0]]), "c.txt")
    assert listed.groups.tolist() == [0, 1, 2, 3, 4, 5, 0, 0]
    assert "c.txt" in listed.relied_on


def test_the_report_counts_groups_of_several_atoms() -> None:
    plain = topology_groups(ELEMENTS, BONDS).plain()
    assert (plain["groups"], plain["atoms"], plain["largest"], plain["weights"]) == (2, 8, 4, 2)
    assert no_groups(8).plain()["groups"] == 0


def test_groups_that_leave_out_what_the_trajectory_records_are_told() -> None:
    free, whole = no_groups(8), topology_groups(ELEMENTS, BONDS)
    for found, recorded, warned in (
        (free, ["hbonds"], True),
        (free, ["none"], False),
        (free, [], False),
        (whole, ["hbonds"], False),
    ):
        noted = against_record(found, ELEMENTS, BONDS, recorded)
        assert bool(noted.notes) == warned
        assert (noted.groups == found.groups).all()
