"""The guard of chains: what it lets pass, what it stops, what it calls things."""

from __future__ import annotations

import numpy as np
import pytest

from mlff_cli.core.errors import DataError
from mlff_cli.sampling.beads import guard as bead_guard
from mlff_cli.sampling.beads.guard import Guard


def line(n: int, spacing: float = 3.8) -> np.ndarray:
    """One frame of n beads on a zigzag."""
    x = np.zeros((1, n, 3))
    x[0, :, 0] = 0.8 * spacing * np.arange(n)
    x[0, :, 1] = 0.6 * spacing * (np.arange(n) % 2)
    return x


def guard(n: int) -> tuple[Guard, np.ndarray]:
    x = line(n)
    bonds = np.stack([np.arange(n - 1), np.arange(1, n)], 1)
    return Guard(bonds, x, [f"bead {k}" for k in range(n)]), x


@pytest.mark.parametrize("n", [10, 100])  # all pairs, and those of a search tree
def test_findings_name_replica_and_beads(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bead_guard, "_AT_ONCE", 2 * n * n)  # two frames at a time
    watch, x = guard(n)
    three = np.repeat(x, 3, axis=0)
    assert watch.check(three) is None
    long, close, lost, short = (three.copy() for _ in range(4))
    long[1, 5:, 0] += 2.5
    close[2, 0] = close[2, 2] + [0.0, 0.0, 1.9]
    lost[0, 4, 1] = np.nan
    short[2, 3] = short[2, 2] + [1.0, 0.0, 0.0]
    told = [watch.check(case) for case in (long, close, lost, short)]
    assert [t.replica for t in told] == [1, 2, 0, 2]
    assert "bead 4 - bead 5 has broken" in told[0].what
    assert told[1].what.startswith("bead 0 and bead 2 overlap: 1.90")
    assert "bead 4 is NaN" in told[2].what
    assert "bead 2 - bead 3 has collapsed: 1.00" in told[3].what


@pytest.mark.parametrize("n", [10, 100])
def test_moving_and_turning_changes_nothing(n: int) -> None:
    watch, x = guard(n)
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    assert watch.check(x @ turn + 100.0) is None
    bent = x.copy()
    bent[0, 1:] *= 1.2
    assert watch.check(bent) is None


def test_limits_come_from_the_start() -> None:
    """Atoms 2.4 apart may come as near as 1.2; bonds of 1.5 may be 2.5 long."""
    x = line(6, 1.5)
    bonds = np.stack([np.arange(5), np.arange(1, 6)], 1)
    watch = Guard(bonds, x, list("abcdef"))
    assert watch.nearest == pytest.approx(1.2)
    far = x.copy()
    far[0, 3:, 0] += 0.95
    assert watch.check(far) is None
    far[0, 3:, 0] += 0.3
    assert "c - d has broken" in watch.check(far).what


def test_a_start_that_is_no_molecule_is_refused() -> None:
    x, bonds, names = line(4), np.array([[0, 1], [1, 2], [2, 3]]), list("abcd")
    same, lost, bonded = x.copy(), x.copy(), x.copy()
    same[0, 3] = same[0, 0]
    lost[0, 2] = np.inf
    bonded[0, 1] = bonded[0, 0]
    for case, told in ((same, "a and d at 0.000"), (lost, "bead c"), (bonded, "a bond of 0.000")):
        with pytest.raises(DataError, match=told):
            Guard(bonds, case, names)


def test_a_molecule_may_have_no_bonds_and_one_bead() -> None:
    watch = Guard(np.zeros((0, 2), dtype=int), np.zeros((2, 1, 3)), ["a"])
    assert watch.check(np.ones((5, 1, 3))) is None
    assert watch.check(np.full((5, 1, 3), np.nan)).replica == 0
