"""Progress: what fits, what is said again, and when a run will be done."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlff_cli.cli import progress
from mlff_cli.cli.progress import FIELD_LINES, Lines, Pace, layout

FIELDS = {"loss": "0.01230", "lr": "0.00200", "molecules/s": "345", "fid0/E_rmse": "3.21"}


def at(done: int, total: int | None, seconds: float) -> Pace:
    """A pace of equal steps."""
    pace = Pace(total, 0.0)
    for step in range(1, done + 1):
        pace.advance(1, step * seconds)
    return pace


@given(
    width=st.integers(10, 200),
    done=st.integers(1, 500),
    total=st.one_of(st.none(), st.integers(501, 10**7)),
    seconds=st.floats(1e-3, 100.0),
    n_fields=st.integers(0, 4),
)
def test_no_line_wraps_and_the_time_left_stays(
    width: int, done: int, total: int | None, seconds: float, n_fields: int
) -> None:
    fields = dict(list(FIELDS.items())[:n_fields])
    pace = at(done, total, seconds)
    shown = layout("training", "steps", pace, done * seconds, fields, width).plain.split("\n")
    assert all(len(line) < width for line in shown)
    assert len(shown) <= 1 + FIELD_LINES
    left = f"ETA {progress.duration(pace.left(done * seconds) or 0)}"
    if total and len(left) < width:
        assert left in shown[0]


def test_the_weightiest_fields_have_the_room() -> None:
    shown = layout("training", "steps", at(10, 100, 1.0), 10.0, FIELDS, 30).plain
    below = shown.split("\n")[1:]
    assert below == ["loss=0.01230, lr=0.00200", "molecules/s=345"]
    wide = layout("training", "steps", at(10, 100, 1.0), 10.0, FIELDS, 160).plain
    assert "\n" not in wide
    assert all(f"{name}={value}" in wide for name, value in FIELDS.items())


@given(
    n=st.integers(20, 3000),
    more=st.integers(1, 10**6),
    slow=st.floats(0.0, 1000.0),
    skipped=st.integers(0, 10**6),
)
def test_the_time_left_forgets_a_slow_start_and_earlier_sessions(
    n: int, more: int, slow: float, skipped: int
) -> None:
    pace = Pace(skipped + n + more, 0.0)
    pace.skip(skipped)
    for step in range(n):
        pace.advance(1, slow + 0.5 * (step + 1))
    now = slow + 0.5 * n
    assert pace.left(now) == pytest.approx(0.5 * more)
    assert pace.left(now + 0.2) == pytest.approx(0.5 * more - 0.2)


def test_plain_lines_say_what_changed_and_grow_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    said: list[str] = []
    with Lines(said.append, 100_000, "training", "steps") as lines:
        for step in range(1, 100_001):
            now[0] = float(step)
            lines.advance(1, loss=f"{1 / step:.4g}", E_rmse="3.2" if step < 500 else "3.1")
    assert sum("E_rmse=" in line for line in said) == 2
    assert all("loss=" in line and "elapsed" in line for line in said)
    assert 50 < len(said) < 300
    assert said[0] == (
        "training: 10/100000 (0 %) steps, elapsed 0:10, ETA 27:46:30, loss=0.1, E_rmse=3.2"
    )
    assert said[-1].startswith("training: 100000/100000 (100 %) steps, elapsed 27:46:40")


CODE = """
import time
from mlff_cli.cli.console import ConsoleReporter
reporter = ConsoleReporter()
with reporter.progress(400, "training", "steps") as bar:
    bar.skip(100)
    for i in range(300):
        time.sleep(0.004)
        bar.advance(1, loss="0.0123", lr="0.002", **{"fid0/E_rmse": "3.21", "fid1/E_rmse": "4.5"})
        if i == 150:
            reporter.info("epoch 1/2: train 0.1")
"""


def on_terminal(columns: int) -> str:
    """What a terminal of so many columns is sent."""
    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "LINES": "24", "TERM": "xterm"}
    child = subprocess.Popen(
        [sys.executable, "-c", CODE], stdout=slave, stderr=slave, env=environment
    )
    os.close(slave)
    text = b""
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:  # the child closed its end
            break
        if not chunk:
            break
        text += chunk
    os.close(master)
    assert child.wait() == 0, text
    return text.decode()


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_a_terminal_shows_the_bar_the_time_left_and_the_lines(columns: int) -> None:
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", on_terminal(columns))
    lines: list[Any] = [line for line in re.split(r"[\r\n]+", text) if line.strip()]
    assert all(len(line) < columns for line in lines)
    assert "epoch 1/2: train 0.1" in lines
    assert re.search(r"training .*\d+/400 .*ETA \d+:\d\d", text)
    assert any(line.startswith("training") and "400/400" in line for line in lines)
    assert any("loss=0.0123, lr=0.002, fid0/E_rmse=3.21" in line or columns < 60 for line in lines)
