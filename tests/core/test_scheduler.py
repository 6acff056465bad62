"""A cluster of Dask's own commands: workers that die, leave, join late or differ; no scheduler."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlff_cli.core.cluster import crew
from mlff_cli.core.errors import MissingDependencyError, NumericalError, UsageError
from mlff_cli.core.reporting import NullReporter
from mlff_cli.core.runtime import interruptible
from tests import crew_functions as functions
from tests.dask_commands import DEADLINE, ROOT, DaskCommands, wait_until

distributed = pytest.importorskip("distributed", reason="needs the extra 'cluster'")

RETRIES = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}  # 3 by default: 4 dead workers


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DaskCommands]:
    """A scheduler without workers."""
    folder = tmp_path / "dask"
    folder.mkdir()
    with DaskCommands(folder, RETRIES) as commands:
        yield commands


def later(action: Callable[[], object], ready: Path) -> threading.Thread:
    """Do something once a task has left its mark."""

    def work() -> None:
        wait_until(lambda: ready.exists() and bool(ready.read_text()), f"no {ready}")
        action()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_killed_worker_s_task_is_run_again(cluster: DaskCommands, tmp_path: Path) -> None:
    cluster.workers(2)
    with crew(functions.dies_once, (tmp_path,), scheduler=str(cluster.file)) as workers:
        assert list(workers.map((k,) for k in range(12))) == list(range(12))
    assert (tmp_path / "died").exists()


def test_a_task_that_kills_every_worker_is_an_error(cluster: DaskCommands) -> None:
    cluster.workers(2)
    with (
        pytest.raises(NumericalError, match="2 workers died one after another") as caught,
        crew(functions.dies_always, scheduler=cluster.address) as workers,
    ):
        list(workers.map((k,) for k in range(12)))
    assert "memory" in str(caught.value.remedy)


def test_a_scheduler_that_dies_is_an_error(
    cluster: DaskCommands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFF_SCHEDULER_TIMEOUT", "2")
    cluster.worker("--death-timeout", "20")
    thread = later(cluster.scheduler.kill, tmp_path / "0")
    with (
        pytest.raises(NumericalError, match="connection to the scheduler .* was lost"),
        crew(functions.sleeps, (tmp_path,), scheduler=cluster.address) as workers,
    ):
        list(workers.map([(0, 5.0)]))
    thread.join()


@pytest.mark.slow
def test_workers_that_all_leave_are_an_error_and_late_ones_help(
    cluster: DaskCommands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlff_cli.core.scheduler.LOOK_SECONDS", 0.5)
    monkeypatch.setenv("MLFF_WORKER_TIMEOUT", "10")
    processes = [cluster.worker()]
    with crew(functions.sleeps, (tmp_path,), scheduler=cluster.address) as workers:

        def replace() -> None:
            processes[0].terminate()
            processes.append(cluster.worker())

        thread = later(replace, tmp_path / "2")
        assert list(workers.map((k, 0.1) for k in range(20))) == list(range(20))
        thread.join()
        assert len({(tmp_path / str(k)).read_text() for k in range(20)}) == 2

        processes[1].terminate()
        processes[1].wait()
        with pytest.raises(NumericalError, match="every worker has left"):
            list(workers.map([(0, 0.1)]))


def test_a_scheduler_without_workers_is_told(
    cluster: DaskCommands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFF_WORKER_TIMEOUT", "0.5")
    with pytest.raises(
        MissingDependencyError, match=r"no worker has joined .* in 0\.5 s"
    ) as caught:
        crew(functions.never, scheduler=cluster.address).__enter__()
    assert "dask worker tcp://127.0.0.1" in str(caught.value.remedy)


def test_workers_are_waited_for(cluster: DaskCommands) -> None:
    reporter = NullReporter()
    threading.Timer(1.0, cluster.worker).start()
    with crew(functions.power, (2,), scheduler=cluster.address, reporter=reporter) as workers:
        assert list(workers.map([(3,)])) == [9]
    assert reporter.warnings == []


@pytest.mark.parametrize("answers", [False, True])
def test_nobody_at_the_address_ends_within_seconds(
    answers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing listens there, or something that is no scheduler."""
    monkeypatch.setenv("MLFF_SCHEDULER_TIMEOUT", "1")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        if answers:
            other.listen()
        address = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(MissingDependencyError, match=f"{address} does not answer") as caught:
            crew(functions.never, scheduler=address).__enter__()
    assert time.monotonic() - start < 5
    assert "MLFF_SCHEDULER_TIMEOUT" in str(caught.value.remedy)


@pytest.mark.parametrize(
    "text", [None, "", "{}", "[]", '{"address": "tcp://no.such.host.invalid:1"}']
)
def test_a_scheduler_file_without_a_scheduler_is_told(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFF_SCHEDULER_TIMEOUT", "0.5")
    file = tmp_path / "scheduler.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(MissingDependencyError) as caught:
        crew(functions.never, scheduler=str(file)).__enter__()
    assert caught.value.where == str(file)


def test_a_bad_timeout_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFF_WORKER_TIMEOUT", "soon")
    with pytest.raises(UsageError, match="MLFF_WORKER_TIMEOUT is a number of seconds"):
        crew(functions.never, scheduler="tcp://127.0.0.1:1").__enter__()


def test_another_version_is_told_at_the_start_and_from_late_workers(
    cluster: DaskCommands, tmp_path: Path
) -> None:
    """A real worker that finds other metadata of mlff before ours."""
    other = tmp_path / "other" / "mlff_cli-99.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: mlff-cli\nVersion: 99.0\n")
    environ = {"PYTHONPATH": f"{other.parent}{os.pathsep}{ROOT}"}
    cluster.worker()
    thread = later(lambda: cluster.worker(environ=environ), tmp_path / "0")
    with (
        pytest.raises(MissingDependencyError, match=r"127.*has mlff-cli 99\.0") as caught,
        crew(functions.sleeps, (tmp_path,), scheduler=cluster.address) as workers,
    ):
        list(workers.map((k, 0.1) for k in range(300)))
    thread.join()
    assert "environment that runs this command" in str(caught.value.remedy)
    with pytest.raises(MissingDependencyError, match=r"127.*has mlff-cli 99\.0"):
        crew(functions.never, scheduler=cluster.address).__enter__()


@pytest.mark.parametrize("absent", ["mlff_cli", "tests"])
def test_a_worker_that_lacks_the_code_is_told(
    absent: str, cluster: DaskCommands, tmp_path: Path
) -> None:
    """The whole package, or the module of one function."""
    package = tmp_path / "other" / absent
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"raise ModuleNotFoundError('No module {absent}')\n")
    cluster.worker(environ={"PYTHONPATH": str(package.parent)})
    rule = f"the worker tcp://.* cannot run mlff: .*No module {absent}"
    with pytest.raises(MissingDependencyError, match=rule):
        crew(functions.never, scheduler=cluster.address).__enter__()


def test_an_input_that_a_worker_does_not_see_is_told(cluster: DaskCommands, tmp_path: Path) -> None:
    """The worker lives in a name space where another file system hides the folder."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "traj.h5").write_bytes(b"x" * 7)
    unshare = shutil.which("unshare")
    hide = ["--map-root-user", "--mount", "sh", "-ec", 'mount -t tmpfs t "$1"; shift; exec "$@"']
    before = [str(unshare), *hide, "sh", str(data)]
    if (
        not unshare
        or subprocess.run([*before, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("mounting a tmpfs is not permitted")
    cluster.worker(before=before)
    with pytest.raises(UsageError, match="has 7 bytes and the worker .* does not see it") as caught:
        crew(functions.never, scheduler=cluster.address, inputs=[data / "traj.h5"]).__enter__()
    assert caught.value.where == str(data / "traj.h5")


@pytest.mark.slow
def test_a_task_that_outlives_the_grace_is_left_behind(
    cluster: DaskCommands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlff_cli.core.scheduler.GRACE_SECONDS", 1.0)
    cluster.worker()
    with (
        interruptible() as stop,
        crew(functions.sleeps, (tmp_path,), scheduler=cluster.address, stop=stop) as workers,
    ):
        thread = later(lambda: os.kill(os.getpid(), signal.SIGUSR1), tmp_path / "1")
        seen = list(workers.map((k, 5.0 * k) for k in range(5)))
        thread.join()
    assert stop.signal is signal.SIGUSR1
    assert seen == [0]


PROGRAM = """
import signal
import sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` ignores it
from mlff_cli.core.cluster import crew
from tests import crew_functions as functions
with crew(functions.sleeps, (Path(sys.argv[1]),), scheduler=sys.argv[2]) as workers:
    list(workers.map((k, 0.2) for k in range(10_000)))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_program_leaves_the_cluster_empty(
    number: signal.Signals, cluster: DaskCommands, tmp_path: Path
) -> None:
    cluster.worker()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path), cluster.address],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until((tmp_path / "2").exists, "nothing to interrupt")
    process.send_signal(number)
    _, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == -number, errors
    assert ("KeyboardInterrupt" in errors) == (number == signal.SIGINT)
    with distributed.Client(cluster.address, set_as_default=False) as client:

        def left() -> int:
            return int(client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)))

        wait_until(lambda: left() == 0, "tasks stay on the cluster")
    assert len(list(tmp_path.glob("[0-9]*"))) < 30
    with crew(functions.power, (2,), scheduler=cluster.address) as workers:
        assert list(workers.map([(3,)])) == [9]


def test_dask_s_log_and_client_leave_no_trace(cluster: DaskCommands) -> None:
    import logging

    before = logging.getLogger("distributed").level
    cluster.worker()
    with crew(functions.power, (2,), scheduler=cluster.address) as workers:
        list(workers.map([(3,)]))
    assert logging.getLogger("distributed").level == before
    with pytest.raises(ValueError, match="No global client found"):
        distributed.get_client()
