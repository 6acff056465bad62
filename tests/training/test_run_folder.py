"""Logs, checkpoints, transferred weights and batches made ahead."""

from __future__ import annotations

import csv
import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mlff_cli.core.errors import ConfigError, DataError
from mlff_cli.core.reporting import NullReporter
from mlff_cli.data.model_file import ModelFile, load_model_file
from mlff_cli.training.checkpoints import Checkpoints
from mlff_cli.training.prefetch import ahead
from mlff_cli.training.run_log import FileReporter, RunLog, read_rows, run_columns
from mlff_cli.training.settings import CheckpointSection


def snapshot(weights: dict[str, Tensor], training: dict[str, Any]) -> ModelFile:
    return ModelFile(weights, {}, "multifidelity", {}, [1], [], {}, {}, training=training)


def make(folder: Path, fingerprint: dict[str, Any], n_saved: int = 3) -> Checkpoints:
    section = CheckpointSection.model_validate({"kwargs": {"n_saved": n_saved}})
    return Checkpoints(folder, section, snapshot, fingerprint)


def weights(value: float) -> dict[str, Tensor]:
    return {"w": torch.tensor([value])}


def test_the_best_are_kept_and_the_very_best_is_the_result(tmp_path: Path) -> None:
    checkpoints = make(tmp_path, {"a": 1})
    losses = [5.0, 3.0, 4.0, 1.0, 2.0, 6.0]
    news = [checkpoints.offer(weights(v), i, v, {}) for i, v in enumerate(losses)]
    assert news == [True, True, False, True, False, False]
    kept = {float(load_model_file(p).weights["w"]) for p in checkpoints.folder.glob("best_*.pt")}
    assert kept == {1.0, 2.0, 3.0}
    assert float(checkpoints.result().weights["w"]) == 1.0


def test_a_run_resumes_only_with_what_it_was_started_with(tmp_path: Path) -> None:
    first = make(tmp_path, {"config": {"trainer": {"epochs": 3}}, "inputs": {"a.h5": "12"}})
    assert first.resume() is None
    first.offer(weights(0.5), 7, 0.25, {})
    first.save_last(weights(1.0), {"step": 9, "optimizer": {}})
    again = make(tmp_path, {"config": {"trainer": {"epochs": 3}}, "inputs": {"a.h5": "12"}})
    checkpoint = again.resume()
    assert checkpoint is not None
    assert checkpoint.training["step"] == 9
    assert again.best == first.best
    other = make(tmp_path, {"config": {"trainer": {"epochs": 4}}, "inputs": {"a.h5": "99"}})
    with pytest.raises(ConfigError) as caught:
        other.resume()
    assert "config.trainer.epochs: 3 -> 4" in str(caught.value)
    assert "12 -> 99" in str(caught.value)


def test_a_model_in_the_place_of_the_checkpoint_is_told_from_a_run(tmp_path: Path) -> None:
    """As somebody has it who copies a best checkpoint there, to go on from the best."""
    checkpoints = make(tmp_path, {"a": 1})
    checkpoints.offer(weights(0.5), 7, 0.25, {})
    next(checkpoints.folder.glob("best_*.pt")).rename(checkpoints.last)
    with pytest.raises(DataError, match="cannot continue from this: optimizer, best, fingerprint"):
        checkpoints.resume()
    assert checkpoints.resume(replace=True) is None


def test_rows_of_nothing_are_dropped(tmp_path: Path) -> None:
    good = {"kind": "metrics", "step": 2, "epoch": 1}
    rows = [{"kind": "metrics", "epoch": 1}, {"kind": "metrics", "step": "x"}, good]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_rows(tmp_path / "metrics.jsonl") == [good]


def test_a_new_run_removes_its_own_checkpoints_only(tmp_path: Path) -> None:
    def shared(prefix: str, **kwargs: Any) -> Checkpoints:
        values = {"dirname": str(tmp_path / "all"), "filename_prefix": prefix, "kwargs": kwargs}
        return Checkpoints(tmp_path, CheckpointSection.model_validate(values), snapshot, {})

    for prefix in ("a", "b"):
        shared(prefix).offer(weights(1.0), 1, 1.0, {})
    with pytest.raises(ConfigError, match="require_empty: 1 checkpoints"):
        shared("b", require_empty=True).clear()
    shared("b").clear()
    assert [p.name for p in (tmp_path / "all").iterdir()] == ["a_best_00000001_1.pt"]
    shared("b", require_empty=True).clear()


def test_the_log_names_units_and_survives_a_killed_run(tmp_path: Path) -> None:
    units = {"val/E_rmse": "kcal/mol"}
    columns = ["train/loss", "val/E_rmse"]
    log = RunLog(tmp_path, columns, units)
    log.write(1, 1, {"train/loss": 0.5})
    log.write(2, 1, {"train/loss": 0.25, "val/E_rmse": 3.0})
    log.write(3, 2, {"train/loss": float("nan")})
    with log.csv.open() as stream:
        header, *rows = list(csv.reader(stream))
    assert header == ["step", "epoch", "train/loss", "val/E_rmse [kcal/mol]"]
    assert rows == [["1", "1", "0.5", ""], ["2", "1", "0.25", "3.0"], ["3", "2", "", ""]]
    lines = [json.loads(line) for line in log.jsonl.read_text().splitlines()]
    assert lines[0] == {"kind": "units", "val/E_rmse": "kcal/mol"}
    assert lines[2]["val/E_rmse"] == 3.0
    with log.jsonl.open("a") as stream:
        stream.write('{"kind": "metrics", "step": 4, "tr')
    resumed = RunLog(tmp_path, columns, units, resume_after=2)
    assert [row["step"] for row in resumed.rows] == [1, 2]
    assert len(log.csv.read_text().splitlines()) == 3
    assert read_rows(log.jsonl) == resumed.rows


def test_numbers_that_never_come_have_no_column(tmp_path: Path) -> None:
    columns, units = run_columns(["energy"], {"E_rmse": "eV", "E_r2": "", "q_rmse": "e"}, 2)
    assert columns[:5] == ["train/loss", "train/energy_loss", "train/E_rmse", "train/E_r2",
                           "train/q_rmse"]  # fmt: skip
    assert units == {f"{p}/{k}": u for p in ("train", "val") for k, u in
                     (("E_rmse", "eV"), ("q_rmse", "e"))}  # fmt: skip
    names = {"lr_0": "embeddings", "lr_1": "others"}
    log = RunLog(tmp_path, columns, units, names=names)
    log.write(1, 1, {"lr_1": 1e-3, "lr_0": 1e-4, "train/loss": 2.0})
    log.write(2, 1, {"val/E_rmse": 4.0, "train/E_rmse": 3.0, "train/loss": 1.0, "extra": 1.0})
    log.write(3, 2, {"train/loss": 0.5})
    expected = "step,epoch,train/loss,train/E_rmse [eV],lr_0,lr_1,val/E_rmse [eV],extra"
    assert log.csv.read_text().splitlines() == [
        expected,
        "1,1,2.0,,0.0001,0.001,,",
        "2,1,1.0,3.0,,,4.0,1.0",
        "3,2,0.5,,,,,",
    ]
    again = RunLog(tmp_path, columns, units, names=names, resume_after=1)
    assert again.csv.read_text().splitlines() == [
        "step,epoch,train/loss,lr_0,lr_1",
        "1,1,2.0,0.0001,0.001",
    ]
    second = json.loads(again.jsonl.read_text().splitlines()[1])
    assert second == {"kind": "names", **names}


def test_the_file_keeps_what_the_terminal_was_spared(tmp_path: Path) -> None:
    heard = NullReporter()
    reporter = FileReporter(heard, tmp_path / "train.log", append=False)
    reporter.info("a")
    reporter.detail("b")
    FileReporter(heard, tmp_path / "train.log", append=True).warning("c")
    assert (tmp_path / "train.log").read_text() == "a\nb\nwarning: c\n"
    assert heard.warnings == ["c"]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_items_come_in_order_from_any_number_of_threads(workers: int) -> None:
    seen: set[int] = set()

    def square(i: int) -> int:
        seen.add(threading.get_ident())
        return i * i

    assert list(ahead(square, 3, 40, workers)) == [i * i for i in range(3, 40)]
    assert (threading.get_ident() in seen) == (workers == 0)


def test_an_error_comes_where_its_item_would() -> None:
    def fail_at_five(i: int) -> int:
        if i == 5:
            raise ValueError("five")
        return i

    items = ahead(fail_at_five, 0, 9, 2)
    assert [next(items) for _ in range(5)] == list(range(5))
    with pytest.raises(ValueError, match="five"):
        next(items)
