"""A Dask cluster on this machine, by Dask's `LocalCluster` or by its own commands."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
DEADLINE = 60.0  # seconds


@contextlib.contextmanager
def local_cluster(threads: int = 1) -> Iterator[str]:
    """Address of a scheduler with two workers, in processes of their own."""
    distributed = pytest.importorskip("distributed", reason="needs the extra 'cluster'")
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=threads,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",  # None means a fixed port, which other tests may hold
    ) as cluster:
        yield cluster.scheduler_address


class DaskCommands:
    """`dask scheduler` and `dask worker` on the loopback interface; use it as a context manager.

    Args:
        folder: where they run and write their logs.
        environ: further variables of all of them.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.file = folder / "scheduler.json"
        self._environ = {**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})}
        self._processes: list[subprocess.Popen[bytes]] = []
        self.scheduler = self._start(
            "scheduler",
            *("--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"),
            *("--scheduler-file", str(self.file)),
        )
        wait_until(self.file.exists, "no scheduler")

    @property
    def address(self) -> str:
        """Of the scheduler."""
        from mlff_cli.core.scheduler_address import _address_in

        return _address_in(self.file, time.monotonic() + DEADLINE)

    def worker(
        self,
        *options: str,
        before: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start workers of one thread; `before` is a command that starts them."""
        words = [
            *("--scheduler-file", str(self.file), "--host", "127.0.0.1", "--nthreads", "1"),
            *("--local-directory", str(self.folder)),
        ]
        return self._start("worker", *words, *options, before=before, environ=environ)

    def workers(self, number: int, *options: str) -> subprocess.Popen[bytes]:
        """Start workers, and wait until each is watched by its nanny.

        Where a process dies before that, nobody starts it again, and its siblings leave, too.
        """
        distributed = pytest.importorskip("distributed")
        process = self.worker("--nworkers", str(number), *options)
        nannies: dict[str, str] = {}

        def all_run() -> bool:
            nannies.update(client.run(_status_of, nanny=True))
            return len(nannies) == number and set(nannies.values()) == {"running"}

        with distributed.Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(number, timeout=DEADLINE)
            wait_until(all_run, "nannies that do not run")
        return process

    def _start(
        self,
        what: str,
        *options: str,
        before: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        with (self.folder / f"{what}.log").open("ab") as log:
            process = subprocess.Popen(
                [*before, sys.executable, "-m", "dask", what, "--no-dashboard", *options],
                cwd=self.folder,
                env={**self._environ, **(environ or {})},
                stdout=log,
                stderr=log,
            )
        self._processes.append(process)
        return process

    def __enter__(self) -> DaskCommands:
        return self

    def __exit__(self, *error: object) -> None:
        for process in reversed(self._processes):  # workers first: they take leave of the scheduler
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _status_of(dask_worker: Any) -> str:
    """Of a nanny, for which Dask has the same name as for a worker."""
    return str(dask_worker.status.name)


def wait_until(condition: Callable[[], bool], otherwise: str) -> None:
    """Wait for something that another process does."""
    until = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > until:
            pytest.fail(otherwise)
        time.sleep(0.02)
