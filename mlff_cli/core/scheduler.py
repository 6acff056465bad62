"""Tasks on a Dask cluster: `--scheduler ADDRESS` of a scheduler that is running already.

What the tasks share is itself the result of a task: Dask copies it to the workers that need it,
makes it anew where one died, and drops it everywhere when this process leaves or is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pickle
import platform
import threading
import time
import uuid
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import distributed
import threadpoolctl  # type: ignore[import-untyped]
from distributed.comm.addressing import parse_address, parse_host_port
from distributed.comm.registry import backends
from distributed.core import connect

from mlff_cli.core import artifacts
from mlff_cli.core.errors import (
    InterruptedRunError,
    MissingDependencyError,
    NumericalError,
    UsageError,
)
from mlff_cli.core.reporting import Reporter
from mlff_cli.core.runtime import StopRequest
from mlff_cli.core.tasks import POLL_SECONDS, Elsewhere, Prepare

TIMEOUTS = {  # environment variables and their defaults, s
    "MLFF_SCHEDULER_TIMEOUT": 10.0,  # until a scheduler that does not answer is given up
    "MLFF_WORKER_TIMEOUT": 60.0,  # until a cluster without workers is given up
}
GRACE_SECONDS = 30.0  # for tasks in hand after a stop request; clusters often kill after 30 s
LOOK_SECONDS = 5.0  # between counts of the workers, which come and go
SHOWN_WORKERS = 3
LOST = (asyncio.CancelledError, CancelledError, distributed.client.ClosedClientError)
SAME_ENVIRONMENT = "start scheduler and workers from the environment that runs this command"


def check_address(address: str) -> None:
    """Refuse what is neither an address nor a scheduler file.

    Raises:
        UsageError: see above.
    """
    if _is_file(address):
        return
    try:
        scheme, place = parse_address(address)
        if scheme not in backends or scheme == "inproc":
            raise ValueError(f"unknown protocol {scheme!r}")
        if not parse_host_port(place)[0]:
            raise ValueError("missing host")
    except ValueError as error:
        raise UsageError(
            f"--scheduler is an address as tcp://HOST:8786, or the scheduler's JSON file, found "
            f"{address!r}: {error}",
            remedy="copy the address that `dask scheduler` prints",
        ) from error


def find_scheduler(address: str) -> str:
    """The address of a scheduler that answers.

    Args:
        address: its address, or the file that it writes it into, now or soon.

    Raises:
        UsageError: the address is none.
        MissingDependencyError: nobody answers there, or no file appears, in time.
    """
    check_address(address)
    seconds = _seconds("MLFF_SCHEDULER_TIMEOUT")
    until = time.monotonic() + seconds
    place = _address_in(Path(address), until) if _is_file(address) else address
    with _silence_told(address, place):
        _knock(place, max(1.0, until - time.monotonic()))
    return place


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
        self._wait_for_workers = _seconds("MLFF_WORKER_TIMEOUT")
        self._prepare = prepare
        self._work = _Work(pickle.dumps((prepare, shared)), _versions(packages), _sizes(inputs))
        self._reporter = reporter
        self._workers = 1
        self._stopped: float | None = None

    def __enter__(self) -> Cluster:
        with contextlib.ExitStack() as stack:
            stack.enter_context(_quiet_log())
            self._client = stack.enter_context(_connected(self.address, self._reporter))
            with self._connection_told():
                self._gather()
                name = f"{self._prepare.__name__}-{uuid.uuid4().hex}"
                self._name = f"mlff-task-{name}"
                self._shared = self._client.submit(_itself, self._work, key=f"mlff-shared-{name}")
                while not self.wait([self._shared]):
                    pass
                self.result(self._shared)
                self._client.replicate([self._shared])  # or the first tasks all go to one worker
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        del self._shared
        self._stack.close()

    def _gather(self) -> None:
        """Wait for workers, and see whether they can do the work."""
        self._wait_for_the_first()
        names = list(self._work.versions)
        try:
            scheduler = self._client.run_on_scheduler(_look_around, names, [])
        except Exception as error:
            raise _lacks_mlff(f"the scheduler {self.address}", error) from error
        _compare_versions(self._work.versions, {f"the scheduler {self.address}": scheduler[0]})
        function = pickle.dumps(self._prepare)
        found = self._client.run(
            _look_around, names, list(self._work.sizes), function, on_error="return"
        )
        for name, answer in found.items():
            if isinstance(answer, Exception):
                raise _lacks_mlff(f"the worker {name}", answer) from answer
        _compare_versions(
            self._work.versions, {f"the worker {name}": a[0] for name, a in found.items()}
        )
        for name, (_, sizes) in found.items():
            _compare_sizes(self._work.sizes, sizes, f"the worker {name}")
        self._workers = max(1, len(found))
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
        return 2 * self._workers  # one in reserve for each

    def submit(self, arguments: tuple[Any, ...]) -> distributed.Future:
        """See `Elsewhere`."""
        with self._connection_told():
            key = f"{self._name}-{uuid.uuid4().hex}"
            return self._client.submit(_run_task, self._shared, *arguments, key=key)

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
        """Count the workers; without any for long, nothing will ever be done."""
        self._looked, n = time.monotonic(), len(self._client.nthreads())
        if n:
            self._workers, self._seen = n, self._looked
        elif self._looked - self._seen > self._wait_for_workers:
            raise NumericalError(
                f"every worker has left the scheduler {self.address}",
                remedy="start workers and run the same command again; MLFF_WORKER_TIMEOUT=SECONDS "
                "waits longer for others",
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


class _Work:
    """What the tasks share. Pickled without what was prepared of it.

    Args:
        recipe: `prepare` and what it is given, pickled: a worker that cannot unpickle them fails in
            its task and says why, where Dask would give the worker up without a word.
        versions: that a worker must have.
        sizes: of files that it must see.
    """

    def __init__(self, recipe: bytes, versions: dict[str, str], sizes: dict[str, int]) -> None:
        self.recipe, self.versions, self.sizes = recipe, versions, sizes
        self._one_at_a_time = threading.Lock()
        self._function: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _Work, (self.recipe, self.versions, self.sizes)

    def __call__(self, *arguments: Any) -> Any:
        with self._one_at_a_time:
            if self._function is None:
                self._check()  # workers that joined later
                with threadpoolctl.threadpool_limits(1):
                    prepare, shared = pickle.loads(self.recipe)
                    self._function = prepare(*shared)
                self._libraries = threadpoolctl.ThreadpoolController()  # all are loaded now
            with self._libraries.limit(limits=1):
                return self._function(*arguments)

    def _check(self) -> None:
        name = f"the worker {distributed.get_worker().address}"
        versions, sizes = _look_around(list(self.versions), list(self.sizes))
        _compare_versions(self.versions, {name: versions})
        _compare_sizes(self.sizes, sizes, name)


def _itself(work: _Work) -> _Work:
    return work


def _run_task(work: _Work, *arguments: Any) -> Any:
    return work(*arguments)


def _look_around(
    packages: Sequence[str], paths: Sequence[str], function: bytes | None = None
) -> tuple[dict[str, str], dict[str, int]]:
    """Versions here, and sizes of files in bytes, -1 for those that are not seen.

    Raises:
        ImportError: the pickled function is not to be found here.
    """
    if function is not None:
        pickle.loads(function)
    return _versions(packages), _sizes(paths)


def _versions(packages: Sequence[str]) -> dict[str, str]:
    names = dict.fromkeys(("mlff-cli", "numpy", *packages))
    found = {name: artifacts.version(name) for name in names if name != "Python"}
    return {"Python": platform.python_version(), **found}


def _sizes(paths: Sequence[Path | str]) -> dict[str, int]:
    return {os.path.abspath(p): _size(p) for p in paths}


def _size(path: Path | str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _compare_versions(ours: Mapping[str, str], theirs: Mapping[str, Mapping[str, str]]) -> None:
    found = [
        f"{who} has {name} {has[name]}"
        for who, has in theirs.items()
        for name in ours
        if has[name] != ours[name]
    ]
    if found:
        wanted = ", ".join(f"{name} {version}" for name, version in ours.items())
        more = f" and {len(found) - SHOWN_WORKERS} more" if len(found) > SHOWN_WORKERS else ""
        raise MissingDependencyError(
            f"a cluster needs the versions of this process ({wanted}), but "
            f"{'; '.join(found[:SHOWN_WORKERS])}{more}",
            remedy=SAME_ENVIRONMENT,
        )


def _compare_sizes(ours: Mapping[str, int], theirs: Mapping[str, int], who: str) -> None:
    for path, size in ours.items():
        if theirs[path] != size:
            found = "does not see it" if theirs[path] < 0 else f"sees {theirs[path]} bytes"
            raise UsageError(
                f"workers must see the same files, this one has {size} bytes and {who} {found}",
                where=path,
                remedy="put it on a file system that all nodes share, under one path",
            )


def _lacks_mlff(who: str, error: Exception) -> MissingDependencyError:
    return MissingDependencyError(
        f"{who} cannot run mlff: {type(error).__name__}: {error}", remedy=SAME_ENVIRONMENT
    )


def _is_file(address: str) -> bool:
    return address.endswith(".json") or Path(address).is_file()


@contextlib.contextmanager
def _connected(address: str, reporter: Reporter) -> Iterator[distributed.Client]:
    """A client of the scheduler; see `find_scheduler` for the errors."""
    place = find_scheduler(address)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with _silence_told(address, place):
            client = distributed.Client(
                place, timeout=_seconds("MLFF_SCHEDULER_TIMEOUT"), set_as_default=False, name="mlff"
            )
    for warning in told:
        reporter.warning(" ".join(str(warning.message).split()))
    try:
        yield client
    finally:
        with contextlib.suppress(OSError, *LOST):
            client.close()


@contextlib.contextmanager
def _silence_told(address: str, place: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ImportError) as error:  # ImportError: versions of Dask that cannot talk
        reason = "does not answer" if isinstance(error, OSError) else str(error)
        raise MissingDependencyError(
            f"the scheduler {place} {reason} (waited {_seconds('MLFF_SCHEDULER_TIMEOUT'):g} s)",
            where=address if place != address else None,
            remedy="check the address and that `dask scheduler` runs there; "
            "MLFF_SCHEDULER_TIMEOUT=SECONDS waits longer",
        ) from error


def _knock(address: str, seconds: float) -> None:
    """See whether a Dask server answers; a client waits for ever where another program listens.

    Raises:
        OSError: nobody answers in time.
    """

    async def knock() -> None:
        arguments = distributed.Security().get_connection_args("client")
        comm = await asyncio.wait_for(connect(address, timeout=seconds, **arguments), seconds)
        await comm.close()

    with ThreadPoolExecutor(1) as thread:  # this one may have an event loop of its own (notebooks)
        thread.submit(asyncio.run, knock()).result()


def _address_in(file: Path, until: float) -> str:
    """The address that a scheduler wrote into its file, which may still be to come."""
    while True:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return str(json.loads(file.read_text(encoding="utf-8"))["address"])
        if time.monotonic() > until:
            raise MissingDependencyError(
                "no scheduler has written its address into this file",
                where=str(file),
                remedy="start one with `dask scheduler --scheduler-file FILE`; "
                "MLFF_SCHEDULER_TIMEOUT=SECONDS waits longer",
            )
        time.sleep(0.05)


@contextlib.contextmanager
def _quiet_log() -> Iterator[None]:
    """Keep Dask's own log off the terminal; what matters becomes an error or a warning of ours."""
    logger = logging.getLogger("distributed")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _seconds(name: str) -> float:
    text = os.environ.get(name) or str(TIMEOUTS[name])
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < 1e7:
        raise UsageError(f"{name} is a number of seconds above 0, found {text!r}")
    return seconds


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
