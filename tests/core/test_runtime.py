"""Runtime: optional packages and signals, in real processes."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mlff_cli.core.errors import MissingDependencyError
from mlff_cli.core.runtime import STOP_SIGNALS, interruptible, require, require_openmm

WORKER = """
import time
from mlff_cli.core.runtime import interruptible
with interruptible() as stop:
    print("ready", flush=True)
    end = time.monotonic() + 20
    while time.monotonic() < end and not stop.requested:
        time.sleep(0.005)
    print(f"stopped by {stop.signal.name}", flush=True)
    {rest}
"""


def start(rest: str = "") -> subprocess.Popen[str]:
    """A process that works until asked to stop; it is ready for signals on return."""
    code = WORKER.replace("{rest}", rest)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.usefixtures("hang_up")
@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda s: s.name)
def test_a_signal_sets_the_flag_and_the_work_ends_by_itself(number: signal.Signals) -> None:
    process = start()
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (out, err, process.returncode) == (f"stopped by {number.name}\n", "", 0)


def test_a_second_ctrl_c_leaves_a_hung_step() -> None:
    process = start(rest="time.sleep(20)")
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "stopped by SIGINT\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert process.returncode == -signal.SIGINT


def test_a_second_sigterm_only_asks_again() -> None:
    process = start(rest="time.sleep(0.3); print(stop.signal.name)")
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=10)
    assert (out, err, process.returncode) == ("SIGTERM\n", "", 0)


def test_an_ignored_hang_up_stays_ignored() -> None:
    """As under nohup, which the end of a session must not stop."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.requested
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_handlers_are_put_back_even_after_an_error() -> None:
    before = [signal.getsignal(s) for s in STOP_SIGNALS]

    def work() -> None:
        with interruptible():
            assert [signal.getsignal(s) for s in STOP_SIGNALS] != before
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        work()
    assert [signal.getsignal(s) for s in STOP_SIGNALS] == before


def test_nested_blocks_hand_the_signal_to_the_inner_one() -> None:
    with interruptible() as outer, interruptible() as inner:
        os.kill(os.getpid(), signal.SIGTERM)
        assert inner.requested
        assert not outer.requested


def test_outside_the_main_thread_the_flag_is_never_set() -> None:
    seen: list[bool] = []

    def work() -> None:
        with interruptible() as stop:
            seen.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_require_returns_the_module_itself() -> None:
    assert require("xml.dom", "label") is sys.modules["xml.dom"]


@pytest.mark.parametrize("name", ["mlff_no_such_package", "mlff_no_such_package.sub.module"])
def test_a_missing_package_names_the_pip_line(name: str) -> None:
    with pytest.raises(MissingDependencyError, match="'mlff_no_such_package'") as caught:
        require(name, "label")
    assert caught.value.remedy == "pip install 'mlff-cli[label]'"
    assert caught.value.exit_code == 4


def test_a_missing_part_of_an_installed_package_is_named() -> None:
    with pytest.raises(MissingDependencyError, match=r"'xml\.no_such_part'"):
        require("xml.no_such_part", "label")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import a_dependency_nobody_installed", "a_dependency_nobody_installed"),
        ("from mlff_broken import no_such_name", "no_such_name"),
        ("import mlff_broken.compiled_part", r"mlff_broken\.compiled_part"),
        ("raise ImportError('libfoo.so.3: cannot open')", r"libfoo\.so\.3"),
    ],
)
def test_a_broken_package_shows_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, reason: str
) -> None:
    package = tmp_path / "mlff_broken"
    package.mkdir()
    (package / "__init__.py").write_text(source + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=reason):
        require("mlff_broken", "label")


def test_an_openmm_that_does_not_load_is_exit_4_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "openmm", None)  # as where it is not installed
    with pytest.raises(MissingDependencyError, match="conda") as e:
        require_openmm()
    assert e.value.exit_code == 4
    monkeypatch.undo()
    require_openmm()
