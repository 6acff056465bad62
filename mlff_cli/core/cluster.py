"""Who runs a command's tasks: `--workers N` of this machine, `--scheduler ADDRESS` of a cluster.

    with crew(prepare, shared, workers=n, scheduler=address) as workers:
        for result in workers.map(tasks):    # in the order of the tasks, few held at a time
            total += result

Whoever runs them, the same tasks give the same results, so that a sum in their order differs by
rounding at most: worker processes calculate with one thread, this process with as many as it was
given, and a threaded matrix product may add up in another order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mlff_cli.core.errors import UsageError
from mlff_cli.core.reporting import NullReporter, Reporter
from mlff_cli.core.runtime import StopRequest, require
from mlff_cli.core.tasks import Crew, Here, Prepare
from mlff_cli.core.workers import Processes, available_cores


def check_crew(workers: int, scheduler: str | None) -> None:
    """Refuse what `crew` could not gather, before any work is done.

    Args:
        workers: `--workers`: processes of this machine, 0 for one per core.
        scheduler: `--scheduler`: address or file of a Dask scheduler.

    Raises:
        UsageError: the number is negative, both are given, or the address is none.
        MissingDependencyError: a scheduler is given and dask.distributed is not installed.
    """
    if workers < 0:
        raise UsageError(f"--workers must be 0 (all cores) or more, found {workers}")
    if scheduler is None:
        return
    if workers > 1:
        raise UsageError(
            f"--workers {workers} and --scheduler {scheduler} exclude each other: one takes "
            "processes of this machine, the other those of a cluster",
            remedy="leave one out; to use this machine's cores too, start `dask worker` on it",
        )
    require("distributed", "cluster")
    require("threadpoolctl", "cluster")
    from mlff_cli.core.scheduler_address import check_address

    check_address(scheduler)


def find_scheduler(address: str) -> str:
    """The address of a scheduler that answers; for commands that need it only after a while.

    Args:
        address: `--scheduler`: its address, or the file that it writes it into.

    Raises:
        UsageError: the address is none.
        MissingDependencyError: dask.distributed is not installed, or nobody answers in time.
    """
    check_crew(1, address)
    from mlff_cli.core import scheduler_address

    return scheduler_address.find_scheduler(address)


@contextlib.contextmanager
def crew(
    prepare: Prepare,
    shared: tuple[Any, ...] = (),
    *,
    workers: int = 1,
    scheduler: str | None = None,
    stop: StopRequest | None = None,
    reporter: Reporter | None = None,
    inputs: Sequence[Path | str] = (),
    packages: Sequence[str] = (),
) -> Iterator[Crew]:
    """Gather who runs the tasks of `prepare(*shared)`; all leave at the end of the block.

    What is shared and every task's arguments and result are pickled unless this process does the
    work. Paths among them are absolute (`Path.absolute`): workers live in other folders.

    Args:
        prepare: module-level function, called once per worker before its first task; what it
            returns is called with a task's arguments and runs one task at a time.
        shared: arguments of `prepare`, some MB at most.
        workers: processes of this machine; 1 is this one, 0 one per core.
        scheduler: address or file of a Dask scheduler, in place of `workers`.
        stop: the flag of `core.runtime.interruptible`, for work that can be continued.
        reporter: hears who is there, and what is wrong with the cluster.
        inputs: files that every worker must see, of the size they have here.
        packages: distributions that must have the same version on every worker; mlff, Python and
            numpy always.

    Raises:
        UsageError: see `check_crew`; workers do not see an input.
        MissingDependencyError: see `check_crew`; the scheduler does not answer, no worker joins
            it, or workers have other versions.
    """
    check_crew(workers, scheduler)
    stop, reporter = stop or StopRequest(), reporter or NullReporter()
    if scheduler is not None:
        from mlff_cli.core.scheduler import Cluster

        with Cluster(prepare, shared, scheduler, stop, reporter, inputs, packages) as cluster:
            yield cluster
    elif (n := workers or available_cores()) > 1:
        with Processes(prepare, shared, n, stop) as processes:
            yield processes
    else:
        yield Here(prepare, shared, stop)
