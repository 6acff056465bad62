"""Independent tasks in worker processes of one thread each.

The parent alone answers signals: a worker ignores them, finishes its task, and dies with the parent
even when that was killed outright.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for
from typing import Any

from mlff_cli.core.errors import NumericalError
from mlff_cli.core.runtime import STOP_SIGNALS, StopRequest
from mlff_cli.core.tasks import POLL_SECONDS, Elsewhere, Prepare

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Processes(Elsewhere[Future[Any]]):
    """Processes of this machine, one thread each; use it as a context manager.

    Args:
        prepare: module-level function; called once in each process, before its first task.
        shared: what `prepare` is given.
        workers: number of processes.
        stop: the flag of `core.runtime.interruptible`.
    """

    def __init__(
        self, prepare: Prepare, shared: tuple[Any, ...], workers: int, stop: StopRequest
    ) -> None:
        super().__init__(stop)
        self._workers = workers
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(workers, context, _start_worker, (prepare, shared))

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def ahead(self) -> int:
        """See `Elsewhere`."""
        return self._workers + 1  # one in reserve: nobody idles

    def submit(self, arguments: tuple[Any, ...]) -> Future[Any]:
        """See `Elsewhere`."""
        with _quiet_single_threaded_start(), _deaths_told():  # a submission may start a process
            return self._pool.submit(_run_task, *arguments)

    def wait(self, futures: Collection[Future[Any]]) -> Collection[Future[Any]]:
        """See `Elsewhere`."""
        return wait(futures, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED).done

    def result(self, future: Future[Any]) -> Any:
        """See `Elsewhere`."""
        with _deaths_told():
            return future.result()

    def drop(self, futures: Collection[Future[Any]]) -> None:
        """See `Elsewhere`."""
        for future in futures:
            future.cancel()


@contextlib.contextmanager
def _deaths_told() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise NumericalError(
            "a worker process died in the middle of its task",
            remedy="run the same command again to continue; with fewer --workers if memory ran out",
        ) from error


_WORK: list[Any] = []  # of a worker process: what to prepare; then the function, once it is there


def _start_worker(prepare: Prepare, shared: tuple[Any, ...]) -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    os.dup2(2, 1)  # what a foreign library prints is not a result of ours
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _WORK[:] = [prepare, shared]


def _run_task(*arguments: Any) -> Any:
    if len(_WORK) > 1:  # here and not at the start, so that its errors are told as a task's are
        prepare, shared = _WORK
        _WORK[:] = [prepare(*shared)]
    return _WORK[0](*arguments)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)


@contextlib.contextmanager
def _quiet_single_threaded_start() -> Iterator[None]:
    """Start processes with one thread each and deaf to signals until they can ignore them.

    Both are inherited: numerical libraries read the variables when they are loaded, which is before
    any code of ours, and Ctrl-C reaches the whole process group at any moment.
    """
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
