"""Shares of a batch: every molecule once, about the same work, whatever the batch."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlff_cli.data.sharding import even_runs, share

BATCHES = st.lists(st.integers(1, 60), max_size=50)


@given(BATCHES, st.integers(1, 9))
def test_the_shares_are_the_batch(sizes: list[int], n: int) -> None:
    fidelity, index = np.arange(len(sizes)) % 3, np.arange(len(sizes)) * 7
    shares = [share((fidelity, index), np.array(sizes, "int64"), r, n) for r in range(n)]
    together = sorted((int(k), int(i)) for f, x in shares for k, i in zip(f, x, strict=True))
    assert together == sorted(zip(fidelity.tolist(), index.tolist(), strict=True))
    empty = sum(len(index) == 0 for _, index in shares)
    assert empty == max(0, n - len(sizes))


def test_one_process_keeps_the_batch_as_it_is() -> None:
    pick = np.array([1, 0]), np.array([5, 3])
    assert share(pick, np.array([9, 2]), 0, 1) is pick


@given(st.lists(st.integers(1, 30), min_size=1, max_size=9), st.integers(1, 4))
def test_no_other_runs_have_less_work(sizes: list[int], parts: int) -> None:
    ascending = np.sort(sizes)
    edges = even_runs(ascending, parts)

    def best(last: int, left: int) -> float:
        if last == 0:
            return 0
        if left == 0:
            return np.inf
        tries = ((last - i) * ascending[last - 1] for i in range(last))
        return min(max(best(i, left - 1), cost) for i, cost in enumerate(tries))

    work = [(b - a) * ascending[b - 1] for a, b in zip(edges, edges[1:], strict=False) if b > a]
    assert max(work) == best(len(sizes), parts)


def test_work_is_shared_evenly() -> None:
    sizes = np.sort(np.random.default_rng(0).integers(10, 41, 160))
    edges = even_runs(sizes, 4)
    work = [(b - a) * sizes[b - 1] for a, b in zip(edges, edges[1:], strict=False)]
    assert max(work) < 1.05 * np.mean(work)
