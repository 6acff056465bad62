"""Items made ahead come in order, are waited for only when late, and leave no thread behind."""

from __future__ import annotations

import threading
import time

import pytest

from mlff_cli.training.prefetch import AHEAD, ahead


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("batches")]


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_items_come_in_order(workers: int) -> None:
    def slow_at_first(i: int) -> int:
        time.sleep(0.02 if i % 4 == 0 else 0.0)
        return i * i

    assert list(ahead(slow_at_first, 3, 25, workers)) == [i * i for i in range(3, 25)]
    assert list(ahead(slow_at_first, 5, 5, workers)) == []
    assert not threads()


def test_what_is_ready_is_not_waited_for() -> None:
    def make(i: int) -> int:
        time.sleep(0.02)
        return i

    spent = {}
    for workers in (0, 2):
        items = ahead(make, 0, 12, workers)
        next(items)
        first = items.waited
        for _ in range(11):
            time.sleep(0.03)  # what is done with an item
            next(items)
        items.close()
        assert first >= 0.02
        spent[workers] = items.waited - first
    assert spent[0] >= 11 * 0.02
    assert spent[2] < 0.05


def test_only_so_many_are_made_ahead() -> None:
    made = []
    items = ahead(lambda i: made.append(i), 0, 1000, 2)
    assert not threads()
    next(items)
    time.sleep(0.1)
    assert len(made) <= 2 * AHEAD + 1
    items.close()
    assert not threads()
    assert list(items) == []


def test_an_error_ends_the_iteration() -> None:
    def fail_at_five(i: int) -> int:
        if i == 5:
            raise ValueError("five")
        return i

    with ahead(fail_at_five, 0, 9, 2) as items:
        assert [next(items) for _ in range(5)] == list(range(5))
        with pytest.raises(ValueError, match="five"):
            next(items)
        assert not threads()
        assert list(items) == []


def test_leaving_the_block_ends_the_threads() -> None:
    def leave_at_ten() -> None:
        with ahead(lambda i: i, 0, 10**6, 3) as items:
            for i in items:
                if i == 10:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave_at_ten()
    assert not threads()
