"""Worker processes: all results, one thread each, quiet on stdout, stoppable, mortal."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from mlff_cli.core.errors import NumericalError
from mlff_cli.core.runtime import StopRequest, interruptible
from mlff_cli.core.workers import THREAD_VARIABLES, Processes, available_cores


def _raise_to(power: str) -> Callable[[int], int]:
    return lambda x: x ** int(power)


def _ask(what: str) -> Callable[..., Any]:
    def answer(argument: Any = None) -> Any:
        if what == "environment":
            return {name: os.environ.get(name) for name in THREAD_VARIABLES}
        if what == "print":
            os.write(1, b"a library speaks\n")
        if what == "sleep":
            time.sleep(argument)
        return os.getpid()

    return answer


def in_processes(
    prepare: Callable[[str], Callable[..., Any]],
    argument: str,
    tasks: Iterable[tuple[int, tuple[Any, ...]]],
    workers: int,
    stop: StopRequest,
) -> Iterator[tuple[int, Any]]:
    with Processes(prepare, (argument,), workers, stop) as processes:
        yield from processes.as_completed(tasks)


def test_every_task_gives_its_result() -> None:
    tasks = ((k, (k,)) for k in range(20))
    assert dict(in_processes(_raise_to, "3", tasks, 2, StopRequest())) == {
        k: k**3 for k in range(20)
    }
    assert list(in_processes(_raise_to, "3", [], 2, StopRequest())) == []
    assert available_cores() >= 1


def test_workers_have_one_thread_and_leave_our_environment_alone(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    found = dict(in_processes(_ask, "environment", [(0, ())], 1, StopRequest()))
    assert found == {0: dict.fromkeys(THREAD_VARIABLES, "1")}
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ
    list(in_processes(_ask, "print", [(0, ())], 1, StopRequest()))
    out, err = capfd.readouterr()
    assert out == ""
    assert "a library speaks" in err


def test_a_signal_ends_the_run_after_the_tasks_in_hand() -> None:
    with interruptible() as stop:
        seen = []
        for key, _ in in_processes(_ask, "sleep", ((k, (0.05,)) for k in range(1000)), 1, stop):
            seen.append(key)
            if len(seen) == 3:
                os.kill(os.getpid(), signal.SIGINT)
    assert stop.signal is signal.SIGINT
    assert 3 <= len(seen) <= 6
    assert seen == list(range(len(seen)))


def test_a_dead_worker_is_an_error_not_a_hang() -> None:
    def kill() -> None:
        while not (children := multiprocessing.active_children()):
            time.sleep(0.05)
        os.kill(children[0].pid or 0, signal.SIGKILL)

    threading.Thread(target=kill).start()
    with pytest.raises(NumericalError, match="worker process died"):
        list(in_processes(_ask, "sleep", [(0, (30,))], 1, StopRequest()))
