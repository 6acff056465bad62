"""Trackers, read back from what they wrote, and what happens when they cannot work."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from mlff_cli.core.errors import MissingDependencyError
from mlff_cli.core.reporting import NullReporter
from mlff_cli.training import trackers
from mlff_cli.training.run_log import read_rows
from mlff_cli.training.settings import TrainingSettings
from mlff_cli.training.trackers import Tracked, check_trackers, start_trackers
from tests.tiny_training import tiny_overrides

UNITS = {"val/E_rmse": "kcal/mol"}


def settings(**values: Any) -> TrainingSettings:
    return TrainingSettings.model_validate({"run_name": "ethanol", **values})


def row(step: int) -> dict[str, float]:
    return {"train/loss": 1.0 / step, "val/E_rmse": 0.5 * step}


def told(step: int) -> dict[str, Any]:
    """The row as the run log keeps it."""
    return {"kind": "metrics", "step": step, "epoch": 1, **row(step)}


def session(
    chosen: TrainingSettings, folder: Path, steps: range, resumed_at: int = 0
) -> NullReporter:
    """A session of a run that was resumed after a step, or began."""
    reporter = NullReporter()
    kept = [told(step) for step in range(1, resumed_at + 1)]
    model = torch.nn.Linear(2, 1)
    tracked = Tracked(folder, {"seed": 3}, model, UNITS, bool(resumed_at), kept)
    check_trackers(chosen)
    running = start_trackers(chosen, tracked, reporter)
    for step in steps:
        model(torch.ones(1, 2)).sum().backward()
        running.log(step, {**row(step), "val/F_rmse": float("nan")})
    running.close()
    return reporter


# -- TensorBoard ----------------------------------------------------------------------------------


def event_steps(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar of every event file, duplicates included."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.glob("events.*")):
        for raw in RawEventFileLoader(str(path)).Load():
            event = Event.FromString(raw)
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def test_event_files_hold_every_step_once_after_a_crash(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra `track`")
    chosen = settings(tensorboard=True)
    session(chosen, tmp_path, range(1, 7))  # the checkpoint was written after step 4
    session(chosen, tmp_path, range(5, 9), resumed_at=4)
    found = event_steps(tmp_path / "tensorboard")
    assert set(found) == {"train/loss", "val/E_rmse"}
    for tag, points in found.items():
        assert points == [(step, pytest.approx(row(step)[tag])) for step in range(1, 9)]


def test_tensorboard_reads_the_run_and_its_units(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra `track`")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    session(settings(tensorboard=True), tmp_path, range(1, 4))
    reader = EventAccumulator(str(tmp_path / "tensorboard"))
    reader.Reload()
    assert [event.step for event in reader.Scalars("train/loss")] == [1, 2, 3]
    (text,) = reader.Tensors("units/text_summary")
    assert b"| val/E_rmse | kcal/mol |" in text.tensor_proto.string_val[0]


def test_tensorboard_counts_what_comes_before_the_first_step_by_iterations(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra `track`")
    kept = [
        {"kind": "metrics", "step": 0, "epoch": 0, "stage": "prior", **before}
        for before in ({"pretraining/iteration": i, "pretraining/loss": 5.0 - i} for i in range(2))
    ]
    kept.append({**told(1), "stage": "one"})
    tracked = Tracked(tmp_path, {}, torch.nn.Linear(2, 1), UNITS, True, kept)
    running = start_trackers(settings(tensorboard=True), tracked, NullReporter())
    running.log(0, {"pretraining/iteration": 2, "pretraining/loss": 3.0})
    running.close()
    found = event_steps(tmp_path / "tensorboard")
    assert found["pretraining/loss"] == [(0, 5.0), (1, 4.0), (2, 3.0)]
    assert found["train/loss"] == [(1, 1.0)]
    assert "stage" not in found


# -- Weights & Biases -----------------------------------------------------------------------------


@pytest.fixture
def lonely(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[Any]]:
    """No key, no home, and a server in every direction that lists who calls."""
    pytest.importorskip("wandb", reason="needs the extra `track`")
    calls: list[Any] = []
    server = socket.create_server(("127.0.0.1", 0))

    def listen() -> None:
        while True:
            try:
                connection, caller = server.accept()
            except OSError:
                return
            calls.append(caller)
            connection.close()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    here = f"http://127.0.0.1:{server.getsockname()[1]}"
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "WANDB_BASE_URL"):
        monkeypatch.setenv(name, here)
    for name in ("NO_PROXY", "no_proxy", "WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "netrc"))
    yield calls
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


def records(path: Path) -> list[Any]:
    """Records of a .wandb file: a LevelDB log of protobuf messages behind a 7-byte header.

    Blocks of 32 KiB hold chunks: checksum (4), length (2), type (1: whole, 2-4: parts).
    """
    from wandb.proto import wandb_internal_pb2

    data, found, parts, at = path.read_bytes(), [], b"", 7
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            found.append(record)
            parts = b""
    return found


def history(path: Path) -> list[dict[str, Any]]:
    """Logged rows of a .wandb file; what is inside a histogram as `name.part`."""
    histories = (r.history for r in records(path) if r.WhichOneof("record_type") == "history")
    return [
        {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in h.item}
        for h in histories
    ]


def test_an_offline_run_is_whole_after_a_crash_and_calls_nobody(
    tmp_path: Path, lonely: list[Any]
) -> None:
    chosen = settings(
        wandb={"init": {"mode": "offline"}, "watch_model": {"log": "all", "log_freq": 4}}
    )
    before = sys.exit, sys.excepthook
    session(chosen, tmp_path, range(1, 7))
    session(chosen, tmp_path, range(5, 9), resumed_at=4)
    assert (sys.exit, sys.excepthook) == before
    assert lonely == []
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")  # one to synchronise
    assert len(list((tmp_path / "wandb" / "superseded").iterdir())) == 1
    (file,) = folder.glob("*.wandb")
    rows = history(file)
    assert [r["_step"] for r in rows] == list(range(1, 9))
    for r in rows:
        assert {k: r[k] for k in row(r["_step"])} == pytest.approx(row(r["_step"]))
        assert "val/F_rmse" not in r
    assert [r["_step"] for r in rows if "gradients/weight.values" in r] == [5]
    assert sum(rows[4]["gradients/weight.values"]) == 2
    (run,) = [r.run for r in records(file) if r.WhichOneof("record_type") == "run"]
    assert (run.display_name, run.project) == ("ethanol", "mlff")
    assert run.run_id == (tmp_path / "wandb_id.txt").read_text().strip()
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["seed"] == 3
    assert config["units"] == UNITS


def test_online_without_a_key_is_refused_before_training(lonely: list[Any]) -> None:
    with pytest.raises(MissingDependencyError, match="no key") as caught:
        check_trackers(settings(wandb={"init": {"mode": "online"}}))
    assert "wandb.init.mode=offline" in str(caught.value)
    assert lonely == []


@pytest.mark.slow
def test_a_server_that_is_away_stops_only_a_new_run(
    tmp_path: Path, lonely: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr(trackers, "WANDB_START", 2.0)
    chosen = settings(wandb={"init": {"mode": "online"}})
    with pytest.raises(MissingDependencyError, match="could not be started"):
        session(chosen, tmp_path, range(1, 3))
    reporter = session(chosen, tmp_path, range(3, 5), resumed_at=2)
    assert len(reporter.warnings) == 1
    assert lonely  # it would have caught a call of the offline runs as well


def test_a_tracker_that_dies_is_named_once_and_training_goes_on(
    tmp_path: Path, lonely: list[Any]
) -> None:
    chosen = settings(tensorboard=True, wandb={"init": {"mode": "offline"}})
    pytest.importorskip("tensorboard", reason="needs the extra `track`")
    reporter = NullReporter()
    check_trackers(chosen)
    tracked = Tracked(tmp_path, {}, torch.nn.Linear(2, 1), UNITS)
    running = start_trackers(chosen, tracked, reporter)
    running.log(1, row(1))
    (core,) = [p for p in psutil.Process().children() if p.name() == "wandb-core"]
    core.kill()
    core.wait()
    for step in range(2, 30):
        running.log(step, row(step))
    running.close()
    (warning,) = reporter.warnings
    assert warning.startswith("wandb failed")
    steps = [step for step, _ in event_steps(tmp_path / "tensorboard")["train/loss"]]
    assert steps == list(range(1, 30))


@pytest.mark.slow
def test_trackers_agree_with_the_log_of_a_killed_and_resumed_run(
    tmp_path: Path, lonely: list[Any]
) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra `track`")
    overrides = tiny_overrides(tmp_path)
    extra = (
        "tensorboard=true", "wandb.init.mode=offline", "trainer.epochs=12", "log_frequency.train=2",
    )  # fmt: skip
    save, run = tmp_path / "m.pt", tmp_path / "m.run"
    command = [sys.executable, "-m", "mlff_cli", "train", "--save", str(save), *overrides, *extra]
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    log = run / "metrics.jsonl"
    while not log.exists() or len(read_rows(log)) < 13:
        assert child.poll() is None
        time.sleep(0.02)
    child.kill()
    child.wait()
    subprocess.run(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    rows = {r["step"]: r for r in read_rows(log)}
    assert max(rows) == 72
    shown = event_steps(run / "tensorboard")
    assert {"train/loss", "val/loss", "val/fid0/E_rmse", "lr_0"} <= set(shown)
    for tag, points in shown.items():
        assert points == [(s, pytest.approx(r[tag])) for s, r in rows.items() if tag in r]
    (folder,) = (run / "wandb").glob("offline-run-*")
    (file,) = folder.glob("*.wandb")
    sent = history(file)
    assert [r["_step"] for r in sent] == list(rows)
    assert [r["train/loss"] for r in sent] == [r["train/loss"] for r in rows.values()]
    assert lonely == []


# -- absent ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "values"),
    [("tensorboard", {"tensorboard": True}), ("wandb", {"wandb": {"init": {"mode": "offline"}}})],
)
def test_an_absent_package_is_named_before_training(
    module: str, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=module) as caught:
        check_trackers(settings(**values))
    assert "pip install 'mlff-cli[track]'" in str(caught.value)


def test_without_trackers_nothing_is_imported_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("tensorboard", "wandb"):
        monkeypatch.setitem(sys.modules, module, None)
    assert session(settings(), tmp_path, range(1, 4)).warnings == []
    assert list(tmp_path.iterdir()) == []
