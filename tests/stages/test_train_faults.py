"""A training that is killed, stopped or starved goes on exactly where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mlff_cli.core.errors import InterruptedRunError
from mlff_cli.core.reporting import NullProgress, NullReporter
from mlff_cli.data.model_file import load_model_file
from mlff_cli.stages.train import Options, run
from mlff_cli.training.checkpoints import Checkpoints
from mlff_cli.training.run_log import read_rows
from tests.tiny_training import tiny_overrides

KILLS = 30

# imports once, then starts and kills children, which takes a tenth of the time
HARNESS = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from mlff_cli.stages.train import Options, run

folder, seed, kills = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
moments = random.Random(seed)
killed = finished = 0
while killed < kills:  # a run that comes to its end in spite of it is followed by another
    options = Options(folder / str(finished) / "model.pt", overrides=tuple(sys.argv[4:]))
    while not options.save.exists():
        child = os.fork()
        if not child:
            run(options)
            os._exit(0)
        if killed < kills:
            time.sleep(moments.uniform(0.0, 1.0))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            killed += 1
        else:
            assert os.waitstatus_to_exitcode(status) == 0
    finished += 1
print(killed)
"""

# everything that has a state: averages, plateau, accumulation, patience, frequent checkpoints
STATEFUL = (
    "trainer.ema_decay=0.9",
    "trainer.accumulate=2",
    "trainer.epochs=8",
    "trainer.early_stopping.patience=50",
    "scheduler.class=ReduceLROnPlateauScheduler",
    "scheduler.kwargs={factor: 0.5, patience: 0}",
    "scheduler.warmup_steps=5",
    "log_frequency.val=2",
    "log_frequency.train=5",
)


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return (*tiny_overrides(tmp_path_factory.mktemp("data")), *STATEFUL)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, overrides: tuple[str, ...]) -> Path:
    save = tmp_path_factory.mktemp("whole") / "model.pt"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run(Options(save=save, overrides=overrides))
    finally:
        torch.set_num_threads(before)
    return save


def test_thirty_kills_at_random_moments_change_nothing(
    tmp_path: Path, overrides: tuple[str, ...], uninterrupted: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HARNESS, str(tmp_path), "7", str(KILLS), *overrides],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == KILLS
    expected = read_rows(uninterrupted.with_suffix(".run") / "metrics.jsonl")
    for folder in tmp_path.iterdir():
        assert (folder / "model.pt").read_bytes() == uninterrupted.read_bytes()
        assert read_rows(folder / "model.run" / "metrics.jsonl") == expected


class SignalAt(NullReporter):
    """Sends a signal to this process when the bar has moved `step` times."""

    def __init__(self, step: int, number: signal.Signals) -> None:
        super().__init__()
        self.step, self.number = step, number

    def progress(self, total: int | None, description: str, unit: str = "") -> NullProgress:
        reporter = self

        class Bar(NullProgress):
            def advance(self, n: int = 1, **fields: object) -> None:
                reporter.step -= n
                if reporter.step == 0:
                    os.kill(os.getpid(), reporter.number)

        return Bar()


@pytest.mark.usefixtures("hang_up")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("step", [1, 13])
def test_any_stop_signal_leaves_a_run_that_continues_exactly(
    tmp_path: Path,
    overrides: tuple[str, ...],
    uninterrupted: Path,
    number: signal.Signals,
    step: int,
) -> None:
    options = Options(save=tmp_path / "model.pt", overrides=overrides)
    with pytest.raises(InterruptedRunError, match=f"stopped at step {step} of 24"):
        run(options, SignalAt(step, number))
    run(options)
    assert options.save.read_bytes() == uninterrupted.read_bytes()


def test_averaged_weights_are_what_is_kept_and_used(uninterrupted: Path) -> None:
    last = uninterrupted.with_suffix(".run") / "checkpoints" / "last.pt"
    raw, used = load_model_file(last, averaged=False), load_model_file(last)
    assert raw.ema is not None
    assert all(torch.equal(used.weights[k], v) for k, v in raw.ema.items())
    assert any(not torch.equal(used.weights[k], v) for k, v in raw.weights.items())


def test_a_run_that_ended_early_stays_ended(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    more = ("trainer.early_stopping.patience=1", "trainer.early_stopping.min_delta=1e9")
    options = Options(save=tmp_path / "model.pt", overrides=(*overrides, *more))
    summary = run(options)
    assert summary.data["steps"] == 4  # the first validation improves on nothing, the second ends
    options.save.unlink()
    assert run(options).data["steps"] == 4


def test_checkpoints_come_by_the_clock_as_well(
    tmp_path: Path, overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = []
    real = Checkpoints.save_last

    def save_last(self: Checkpoints, weights: object, training: dict[str, Any], *more: Any) -> None:
        saved.append(training["step"])
        real(self, weights, training, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(Checkpoints, "save_last", save_last)
    seldom = ("trainer.epochs=2", "log_frequency.val=6", "checkpoint.minutes=1e-9")
    run(Options(save=tmp_path / "model.pt", overrides=(*overrides, *seldom)))
    assert saved == [1, 2, 3, 4, 5, 6]
    saved.clear()
    seldom = ("trainer.epochs=2", "log_frequency.val=3")
    run(Options(save=tmp_path / "other.pt", overrides=(*overrides, *seldom)))
    assert saved == [3, 6]


def test_a_run_that_ends_by_its_learning_rate_is_validated(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    falls = (
        "trainer.accumulate=1",
        "log_frequency.val=100",
        "scheduler=null",
        "scheduler={class: PiecewiseLinear, terminate_on_low_lr: 1.0e-4, kwargs: "
        "{milestones_values: [[0, 1.0e-3], [3, 1.0e-6]]}}",
    )
    summary = run(Options(save=tmp_path / "model.pt", overrides=(*overrides, *falls)))
    steps = summary.data["steps"]
    assert 1 <= steps <= 4
    rows = read_rows(tmp_path / "model.run" / "metrics.jsonl")
    assert rows[-1]["step"] == steps
    assert summary.data["metrics"]["loss"] == rows[-1]["val/loss"]
    assert load_model_file(tmp_path / "model.pt").training["val_loss"] == rows[-1]["val/loss"]


@pytest.mark.slow  # compiles for a minute
def test_a_compiled_run_continues_exactly(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    few = (*overrides, "trainer.epochs=2", "trainer.compile=true")
    for name in ("whole", "stopped"):
        options = Options(save=tmp_path / name / "model.pt", overrides=few)
        if name == "stopped":
            with pytest.raises(InterruptedRunError):
                run(options, SignalAt(3, signal.SIGTERM))
        run(options)
    whole, stopped = ((tmp_path / n / "model.pt").read_bytes() for n in ("whole", "stopped"))
    assert whole == stopped
    assert read_rows(tmp_path / "whole/model.run/metrics.jsonl") == read_rows(
        tmp_path / "stopped/model.run/metrics.jsonl"
    )
