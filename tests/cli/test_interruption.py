"""Signals in the middle of a command, sent to the real process.

Nothing half-written stays, and a run that is given again ends with the bytes of one never stopped.

`mlff label` has the same test beside its stage, tests/stages/test_label.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.synthetic import write_dataset, write_large
from tests.tiny_training import tiny_overrides

ROOT = Path(__file__).parents[2]
DEADLINE = 120.0  # seconds


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    """Start `mlff` in a folder, with the signals of a terminal.

    A shell's `&` ignores SIGINT and `nohup` SIGHUP, and what starts under them inherits that.
    """
    code = (
        "import signal, runpy, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "signal.signal(signal.SIGHUP, signal.SIG_DFL); "
        "sys.argv[0] = 'mlff'; runpy.run_module('mlff_cli', run_name='__main__')"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for success; returns stderr."""
    _, told = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, told
    return told


def wait_for_lines(process: subprocess.Popen[str], log: Path, lines: int) -> None:
    """Wait until a log has so many lines, while the process runs."""
    until = time.monotonic() + DEADLINE
    while process.poll() is None and time.monotonic() < until:
        if log.is_file() and log.read_bytes().count(b"\n") >= lines:
            return
        time.sleep(0.005)
    pytest.fail(f"ended before it could be stopped: {process.communicate()[1]}")


def test_a_stopped_training_continues_to_the_same_bytes(tmp_path: Path) -> None:
    command = ("train", "--save", "m.pt", *tiny_overrides(tmp_path), "trainer.epochs=14")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    finish(start(whole, *command))

    log = broken / "m.run" / "metrics.jsonl"
    seen = 1  # the line of units
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        process = start(broken, *command)
        wait_for_lines(process, log, seen + 3)  # three more epochs
        process.send_signal(number)
        _, told = process.communicate(timeout=DEADLINE)
        if number == signal.SIGKILL:
            assert process.returncode == -signal.SIGKILL
        else:
            assert process.returncode == 75, told
            assert "give the same command again to continue" in told
            assert told.count("error:") == 1
        assert not (broken / "m.pt").exists()
        seen = log.read_bytes().count(b"\n")
    assert "continuing at step" in finish(start(broken, *command))

    names = ("m.pt", "m.run/metrics.csv", "m.run/metrics.jsonl", "m.run/checkpoints/last.pt")
    for name in names:
        assert (broken / name).read_bytes() == (whole / name).read_bytes(), name
    files = [{p.relative_to(f) for p in f.rglob("*")} for f in (whole, broken)]
    assert files[0] == files[1]


def test_a_training_that_is_stopped_while_it_reads_again_can_go_on(tmp_path: Path) -> None:
    """A scheduler that requeues by the exit code must hear 75, though no step was reached."""
    command = ("train", "--save", "m.pt", *tiny_overrides(tmp_path), "trainer.epochs=1000", "-v")
    for wait in (True, False):
        process = start(tmp_path, *command)
        assert process.stderr is not None
        if wait:
            wait_for_lines(process, tmp_path / "m.run" / "metrics.jsonl", 4)
        else:
            while not process.stderr.readline().startswith("reading fidelity 0"):
                assert process.poll() is None
        process.send_signal(signal.SIGUSR1)
        _, told = process.communicate(timeout=DEADLINE)
        assert process.returncode == 75, told
        assert "give the same command again" in told
        assert "Traceback" not in told


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file whose passes take long enough to be stopped between them, whatever else runs."""
    path = tmp_path_factory.mktemp("large") / "d.h5"
    write_large(path, 600_000, seed=1)
    yield path
    path.unlink()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_stopped_calc_sae_leaves_nothing(
    tmp_path: Path, large: Path, number: signal.Signals
) -> None:
    (tmp_path / "d.h5").hardlink_to(large)
    process = start(tmp_path, "calc-sae", "d.h5", "sae.yaml")
    assert process.stderr is not None
    assert process.stderr.readline().startswith("fit:")  # three of four passes are to come
    process.send_signal(number)
    _, told = process.communicate(timeout=DEADLINE)
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130, told
        assert "error: interrupted, nothing was written" in told
        assert "Traceback" not in told
    assert [p.name for p in tmp_path.iterdir()] == ["d.h5"]
    if number == signal.SIGINT:
        finish(start(tmp_path, "calc-sae", "d.h5", "sae.yaml"))
        assert (tmp_path / "sae.yaml").is_file()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_convert_removes_its_temporary_file(
    tmp_path: Path, number: signal.Signals
) -> None:
    write_large(tmp_path / "d.h5", 60_000, seed=1)
    process = start(tmp_path, "convert", "d.h5", "-o", "out.xyz")
    until = time.monotonic() + DEADLINE
    while not list(tmp_path.glob(".out.xyz.*")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.005)
    process.send_signal(number)
    _, told = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130, told
    assert [p.name for p in tmp_path.iterdir()] == ["d.h5"]


def test_what_a_killed_convert_left_goes_with_the_next(tmp_path: Path) -> None:
    write_large(tmp_path / "d.h5", 60_000, seed=1)
    process = start(tmp_path, "convert", "d.h5", "-o", "out.xyz")
    until = time.monotonic() + DEADLINE
    while not list(tmp_path.glob(".out.xyz.*")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.005)
    process.kill()
    process.communicate(timeout=DEADLINE)
    assert not (tmp_path / "out.xyz").exists()
    write_dataset(tmp_path / "small.h5", 5)
    finish(start(tmp_path, "convert", "small.h5", "-o", "out.xyz"))
    assert {p.name for p in tmp_path.iterdir()} == {"d.h5", "small.h5", "out.xyz"}
