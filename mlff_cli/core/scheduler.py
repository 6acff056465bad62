"""Tasks on a Dask cluster: `--scheduler ADDRESS` of a scheduler that is running already.

What the tasks share is itself the result of a task: Dask copies it to the workers that need it,
makes it anew where one died, and drops it everywhere when this process leaves or is killed.
"""

from __future__ import annotations

import contextlib
import pickle
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import distributed

from mlff_cli.core.errors import InterruptedRunError, MissingDependencyError, NumericalError
from mlff_cli.core.reporting import Reporter
from mlff_cli.core.runtime import StopRequest
from mlff_cli.core.scheduler_address import LOST, connected, quiet_log, seconds_of
from mlff_cli.core.shared_work import (
    SharedWork,
    compare_sizes,
    compare_versions,
    itself,
    lacks_mlff,
    look_around,
    run_task,
    sizes_of,
    versions_of,
)
from mlff_cli.core.tasks import POLL_SECONDS, Elsewhere, Prepare

GRACE_SECONDS = 30.0  # for tasks in hand after a stop request; clusters often kill after 30 s
LOOK_SECONDS = 5.0  # between counts of the workers, which come and go


class Cluster(Elsewhere[distributed.Future]):
    """The workers of a Dask scheduler; use it as a context manager. See `core.cluster.crew`.

    Args:
        prepare: module-level function; called once in each worker, before its first task.
        shared: what `prepare` is given.
        address: of the scheduler, or its file.
        stop: the flag of `core.runtime.interruptible`.
        reporter: hears who is there, and what is wrong with the cluster.
        inputs: files that every worker must see.
        packages: distributions that must have the same version on every worker.

    Raises:
        UsageError: the address is none, or workers do not see an input.
        MissingDependencyError: nobody answers there, no worker joins, or versions differ.
    """

    def __init__(
        self,
        prepare: Prepare,
        shared: tuple[Any, ...],
        address: str,
        stop: StopRequest,
        reporter: Reporter,
        inputs: Sequence[Path | str] = (),
        packages: Sequence[str] = (),
    ) -> None:
        super().__init__(stop)
        self.address = address
        self._wait_for_workers = seconds_of("MLFF_WORKER_TIMEOUT")
        self._prepare = prepare
        name = f"{prepare.__name__}-{uuid.uuid4().hex}"
        recipe = pickle.dumps((prepare, shared))
        self._work = SharedWork(name, recipe, versions_of(packages), sizes_of(inputs))
        self._reporter = reporter
        self._held: dict[str, distributed.Future] = {}  # by worker
        self._stopped: float | None = None

    def __enter__(self) -> Cluster:
        with contextlib.ExitStack() as stack:
            stack.enter_context(quiet_log())
            self._client = stack.enter_context(connected(self.address, self._reporter))
            with self._connection_told():
                self._gather()
                key = f"mlff-shared-{self._work.name}"
                self._shared = self._client.submit(itself, self._work, key=key)
                while not self.wait([self._shared]):
                    pass
                self.result(self._shared)
                self._look()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._held.clear()
        del self._shared
        self._stack.close()

    def _gather(self) -> None:
        """Wait for workers, and see whether they can do the work."""
        self._wait_for_the_first()
        names = list(self._work.versions)
        try:
            scheduler = self._client.run_on_scheduler(look_around, names, [])
        except Exception as error:
            raise lacks_mlff(f"the scheduler {self.address}", error) from error
        compare_versions(self._work.versions, {f"the scheduler {self.address}": scheduler[0]})
        function = pickle.dumps(self._prepare)
        found = self._client.run(
            look_around, names, list(self._work.sizes), function, on_error="return"
        )
        for name, answer in found.items():
            if isinstance(answer, Exception):
                raise lacks_mlff(f"the worker {name}", answer) from answer
        compare_versions(
            self._work.versions, {f"the worker {name}": a[0] for name, a in found.items()}
        )
        for name, (_, sizes) in found.items():
            compare_sizes(self._work.sizes, sizes, f"the worker {name}")
        self._looked = self._seen = time.monotonic()  # last count, last time there were any
        threads = self._client.nthreads()
        self._reporter.info(f"cluster {self.address}: {_count(len(threads), 'worker')}")
        idle = sum(n - 1 for n in threads.values())
        if idle:
            self._reporter.warning(
                f"{_count(idle, 'thread')} of the cluster will idle: a worker calculates with one "
                "thread; start workers with `--nworkers N --nthreads 1`"
            )

    def _wait_for_the_first(self) -> None:
        until = time.monotonic() + self._wait_for_workers
        while True:
            try:
                self._client.wait_for_workers(1, timeout=POLL_SECONDS)
                return
            except TimeoutError:
                if self.stop.requested:
                    raise InterruptedRunError(
                        "stopped while waiting for workers of the scheduler",
                        remedy="run the same command again to continue",
                    ) from None
                if time.monotonic() > until:
                    raise MissingDependencyError(
                        f"no worker has joined the scheduler {self.address} in "
                        f"{self._wait_for_workers:g} s",
                        remedy=f"start some: `dask worker {self._client.scheduler.address} "
                        "--nthreads 1`; MLFF_WORKER_TIMEOUT=SECONDS waits longer",
                    ) from None

    def ahead(self) -> int:
        """See `Elsewhere`."""
        return 2 * max(1, len(self._held))  # one in reserve for each

    def submit(self, arguments: tuple[Any, ...]) -> distributed.Future:
        """See `Elsewhere`."""
        with self._connection_told():
            key = f"mlff-task-{self._work.name}-{uuid.uuid4().hex}"
            return self._client.submit(run_task, self._shared, *arguments, key=key)

    def wait(self, futures: Collection[distributed.Future]) -> Collection[distributed.Future]:
        """See `Elsewhere`."""
        with self._connection_told(), self._client.as_current():
            try:
                found = distributed.wait(
                    list(futures), timeout=POLL_SECONDS, return_when="FIRST_COMPLETED"
                )
                done = list(found.done)
            except TimeoutError:
                done = []
            if time.monotonic() - self._looked > LOOK_SECONDS:
                self._look()
        return done

    def _look(self) -> None:
        """See who is there; without any worker for long, nothing will ever be done."""
        self._looked, there = time.monotonic(), self._client.nthreads()
        # Dask takes what is shared away from idle workers, and with it what they prepared of it:
        # each holds a result of its own that keeps it
        for gone in self._held.keys() - there.keys():
            del self._held[gone]
        for new in there.keys() - self._held.keys():
            key = f"mlff-held-{self._work.name}-{uuid.uuid4().hex}"
            self._held[new] = self._client.submit(itself, self._shared, key=key, workers=[new])
        if there:
            self._seen = self._looked
        elif self._looked - self._seen > self._wait_for_workers:
            raise NumericalError(
                f"every worker has left the scheduler {self.address}",
                remedy="read the workers' logs (a task that runs out of memory ends its worker), "
                "start workers and run the same command again; MLFF_WORKER_TIMEOUT=SECONDS waits "
                "longer for others",
            )

    def result(self, future: distributed.Future) -> Any:
        """See `Elsewhere`."""
        with self._connection_told():
            while True:
                try:
                    return future.result(timeout=POLL_SECONDS)
                except distributed.KilledWorker as error:
                    raise NumericalError(
                        f"{error.allowed_failures + 1} workers died one after another with the "
                        f"same task, the last was {error.last_worker.address}",
                        remedy="read the workers' logs; if memory ran out, start fewer per node or "
                        "give them more (`dask worker --memory-limit`)",
                    ) from error
                except TimeoutError:
                    if future.status == "error":  # the task's own
                        raise
                    self._look()  # whoever held it died, and it is calculated again

    def drop(self, futures: Collection[distributed.Future]) -> None:
        """See `Elsewhere`."""
        if futures and self._client.status == "running":
            with contextlib.suppress(OSError, *LOST):
                self._client.cancel(list(futures), force=True)

    def _gives_up(self) -> bool:
        if self.stop.requested and self._stopped is None:
            self._stopped = time.monotonic()
        return self._stopped is not None and time.monotonic() - self._stopped > GRACE_SECONDS

    @contextlib.contextmanager
    def _connection_told(self) -> Iterator[None]:
        """Turn what Dask raises when the scheduler is gone into an error of ours."""
        try:
            yield
        except (*LOST, OSError) as error:
            if isinstance(error, OSError) and self._client.status == "running":
                raise  # a task's own
            raise NumericalError(
                f"the connection to the scheduler {self.address} was lost",
                remedy="read the scheduler's log, start it again and run the same command again",
            ) from error


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
