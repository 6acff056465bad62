"""Pieces of work in tasks: none is lost, and tasks grow and shrink with the time of a piece."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mlff_cli.core.pace import TASK_SECONDS, Pace


@given(
    n=st.integers(0, 300),
    most=st.integers(1, 50),
    seconds=st.lists(st.floats(0, 100), min_size=1, max_size=5),
)
def test_every_piece_comes_once_and_in_order(n: int, most: int, seconds: list[float]) -> None:
    pace, keys, pieces = Pace(most), list[int](), list[str]()
    for k, (names, (part,)) in enumerate(pace.tasks((i, str(i)) for i in range(n))):
        assert 1 <= len(part) <= most
        keys.extend(names)
        pieces.extend(part)
        pace.learn(seconds[k % len(seconds)])
    assert keys == list(range(n))
    assert pieces == [str(i) for i in range(n)]


def test_a_task_takes_about_its_time() -> None:
    pace = Pace(1000)
    tasks = pace.tasks((i, i) for i in range(10_000))
    assert len(next(tasks)[0]) == 1  # nothing is known yet
    for seconds in (0.01, 0.3, 5.0, 0.0):
        pace.learn(seconds)
        n = len(next(tasks)[0])
        assert n == 1000 if seconds == 0.0 else n == 1 or n * seconds <= TASK_SECONDS
        assert n == 1000 or (n + 1) * seconds > TASK_SECONDS
