"""Tables of a simulation say what the numbers say."""

from __future__ import annotations

import numpy as np

from mlff_cli.physics.replica_exchange import Ladder
from mlff_cli.report.sampling import (
    energy_table,
    exchange_table,
    far_from_equilibrium,
    odd_density,
    plain_exchange,
    poor_exchange,
)


def ladder(attempted: list[int], accepted: list[int]) -> Ladder:
    made = Ladder.start(np.array([300.0, 350.0, 400.0]))
    made.attempted[:], made.accepted[:] = attempted, accepted
    return made


def test_energies_are_means_over_frames() -> None:
    table = energy_table(
        np.array([300.0, 400.0]), np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([299.0, 401.0]), 7
    )
    assert table.title == "4 frames of 7 atoms, 2 at each temperature"
    alone = energy_table(np.array([300.0]), np.array([[1.0], [3.0]]), np.array([299.0]), 7)
    assert alone.title == "2 frames of 7 atoms"
    assert table.rows == [["300", "2.00", "1.00", "299.0"], ["400", "5.00", "0.00", "401.0"]]


def test_a_cold_ensemble_is_told_unless_it_may_be_scatter() -> None:
    asked, found = np.array([300.0, 400.0]), np.array([221.0, 401.0])
    told = far_from_equilibrium(asked, found, n_atoms=1000, n_frames=100)
    assert told is not None
    assert "221 K at 300 K" in told
    assert "400" not in told
    assert far_from_equilibrium(asked, found, n_atoms=5, n_frames=2) is None
    assert far_from_equilibrium(asked, np.array([290.0, 410.0]), 1000, 100) is None


def test_swaps_that_hardly_happen_are_told() -> None:
    assert poor_exchange(ladder([100, 100], [5, 50])) is None
    told = poor_exchange(ladder([100, 100], [4, 50]))
    assert told is not None
    assert "300 - 350 K" in told
    assert "350 - 400" not in told


def test_what_was_not_tried_is_no_share() -> None:
    found = ladder([10, 0], [10, 0])
    assert poor_exchange(found) is None
    assert plain_exchange(found)["acceptance"] == [1.0, None]
    assert exchange_table(found).rows == [
        ["300 - 350", 10, 10, "1.000"],
        ["350 - 400", 0, 0, "-"],
    ]


def test_a_box_that_is_not_full_is_told() -> None:
    assert odd_density(None) is odd_density(0.997) is odd_density(1.05) is None
    for value in (0.905, 1.3):
        assert f"{value:.3f} g/cm3" in str(odd_density(value))
