"""Crews: whoever runs the tasks, the same results in the same order, the same errors, few held."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest

from mlff_cli.core.cluster import check_crew, crew
from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.core.reporting import NullReporter
from mlff_cli.core.runtime import interruptible
from mlff_cli.core.tasks import Crew
from tests import crew_functions as functions
from tests.dask_commands import local_cluster

Gather = Callable[..., AbstractContextManager[Crew]]
KINDS = ("here", "processes", "dask")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A scheduler with two workers of two threads, in processes of their own."""
    with local_cluster(threads=2) as found:
        yield found


def options(kind: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    if kind == "dask":
        return {"scheduler": request.getfixturevalue("address")}
    return {"workers": 2 if kind == "processes" else 1}


@pytest.fixture(params=KINDS)
def gather(request: pytest.FixtureRequest) -> Gather:
    found = options(request.param, request)
    return lambda *arguments, **more: crew(*arguments, **found, **more)


def test_results_come_in_the_order_of_the_tasks(gather: Gather) -> None:
    with gather(functions.slow_first, (0.3,)) as workers:
        assert list(workers.map((k,) for k in range(30))) == list(range(30))
        assert list(workers.map([])) == []
        assert list(workers.map((k,) for k in range(5))) == list(range(5))  # another pass


def test_results_come_as_they_are_done(gather: Gather) -> None:
    with gather(functions.power, (3,)) as workers:
        found = dict(workers.as_completed((k, (k,)) for k in range(30)))
        assert list(workers.as_completed([])) == []
    assert found == {k: k**3 for k in range(30)}


def test_a_sum_has_the_same_bits_whoever_calculates(request: pytest.FixtureRequest) -> None:
    """Tasks of a fixed size: one thread everywhere gives the same bits, more of them 1e-12."""
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="needs the extra 'cluster'")
    found = []
    for kind in KINDS:
        with (
            threadpoolctl.threadpool_limits(1),
            crew(functions.gram, (7,), **options(kind, request)) as workers,
        ):
            total = np.zeros((40, 40))
            for part in workers.map((k, k + 50) for k in range(0, 1000, 50)):
                total += part
        found.append(total)
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])
    with crew(functions.gram, (7,)) as workers:
        threaded = sum(workers.map((k, k + 50) for k in range(0, 1000, 50)))
    np.testing.assert_allclose(threaded, found[0], rtol=1e-12, atol=1e-12 * np.abs(threaded).max())


def test_few_tasks_are_taken_before_their_turn(gather: Gather) -> None:
    taken = yielded = most = 0

    def tasks() -> Iterator[tuple[int]]:
        nonlocal taken, most
        for k in range(200):
            taken += 1
            most = max(most, taken - yielded)
            yield (k,)

    with gather(functions.slow_first, (0.5,)) as workers:
        for _ in workers.map(tasks()):
            yielded += 1
    assert yielded == 200
    assert most <= 5  # one result that nobody waits for is a matrix in memory


def test_the_first_error_in_order_wins_and_says_where(gather: Gather) -> None:
    found = []
    with (
        pytest.raises(DataError, match="task 4 is bad") as caught,
        gather(functions.fails_from, (4,)) as workers,
    ):
        found.extend(workers.map((k,) for k in range(50)))
    assert caught.value.where == "file, frame 4"
    assert caught.value.remedy == "mend it"


def test_what_cannot_be_prepared_is_a_task_s_error(gather: Gather) -> None:
    with (
        pytest.raises(DataError, match="nothing can be prepared"),
        gather(functions.fails_at_once) as workers,
    ):
        list(workers.map([(), ()]))


@pytest.mark.parametrize("kind", KINDS)
def test_each_worker_prepares_once_per_crew(kind: str, request: pytest.FixtureRequest) -> None:
    before: dict[int, int] = {}
    for _ in range(2):
        with crew(functions.counts_calls, **options(kind, request)) as workers:
            found = list(workers.map((0.02,) for _ in range(30)))
        processes = {pid for pid, _ in found}
        assert len(processes) == (1 if kind == "here" else 2)
        assert len(set(found)) == len(processes)
        if kind != "processes":  # those are new ones
            for pid, made in found:
                assert made == before.get(pid, made - 1) + 1
        before = dict(found)
    os.environ.pop("MLFF_TEST_MADE", None)


@pytest.mark.slow
def test_idle_workers_keep_what_they_prepared(address: str) -> None:
    """Dask takes copies of results away from workers that do not need them, every two seconds."""
    with crew(functions.counts_calls, scheduler=address) as workers:
        first = set(workers.map((0.02,) for _ in range(20)))
        time.sleep(6)
        assert set(workers.map((0.02,) for _ in range(20))) == first


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_worker_runs_one_task_at_a_time_with_one_thread(
    kind: str, request: pytest.FixtureRequest
) -> None:
    pytest.importorskip("threadpoolctl", reason="needs the extra 'cluster'")
    reporter = NullReporter()
    with crew(functions.looks_around, **options(kind, request), reporter=reporter) as workers:
        found = list(workers.map((k,) for k in range(20)))
    assert set(found) == {(1, 1)}
    said = ["2 threads of the cluster will idle" in w for w in reporter.warnings]
    assert said == ([True] if kind == "dask" else [])


def test_a_stop_ends_both_iterations_after_the_tasks_in_hand(gather: Gather) -> None:
    for method in ("map", "as_completed"):
        with interruptible() as stop, gather(functions.power, (2,), stop=stop) as workers:
            seen: list[Any] = []
            work = ((k,) for k in range(1000))
            run = workers.map(work) if method == "map" else workers.as_completed(enumerate(work))
            for result in run:
                seen.append(result)
                if len(seen) == 3:
                    os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal is signal.SIGTERM
        assert 3 <= len(seen) <= 8
        if method == "map":
            assert seen == [k**2 for k in range(len(seen))]


def test_a_left_loop_leaves_nothing_behind(address: str) -> None:
    import distributed

    with crew(functions.slow_first, (0.2,), scheduler=address) as workers:
        for _ in workers.map((k,) for k in range(100)):
            break
    with distributed.Client(address, set_as_default=False) as client:
        tasks = client.run_on_scheduler(lambda dask_scheduler: sorted(dask_scheduler.tasks))
    assert tasks == []


@pytest.mark.parametrize(
    ("workers", "scheduler", "rule"),
    [
        (-1, None, "--workers must be 0"),
        (2, "tcp://127.0.0.1:8786", "exclude each other"),
        (1, "127.0.0.1", "missing port"),
        (1, "tcp://127.0.0.1", "missing port"),
        (1, "tcp://:8786", "missing host"),
        (1, "http://127.0.0.1:8787/status", "unknown protocol 'http'"),
        (1, "inproc://10.0.0.1/1/1", "unknown protocol"),
        (1, "", "missing port"),
    ],
)
def test_what_cannot_be_gathered_is_refused(workers: int, scheduler: str, rule: str) -> None:
    if scheduler is not None:
        pytest.importorskip("distributed", reason="needs the extra 'cluster'")
    with pytest.raises(UsageError, match=rule):
        check_crew(workers, scheduler)
