"""`mlff train --dry-run`: the checklist, its exit codes, and nothing touched."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlff_cli.core.errors import MLFFError
from mlff_cli.stages.train import Options, run
from tests.tiny_training import tiny_overrides

CHECKS = {
    "data 0", "SAE 0", "SAE fit 0", "labels", "fidelity_offset", "validation", "batches",
    "fidelity weights", "device", "packages", "parameters", "memory", "time",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def overrides(folder: Path) -> tuple[str, ...]:
    return tiny_overrides(folder)


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mlff_cli", "train", "--save", "m.pt", "--dry-run", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "COLUMNS": "80", "OMP_NUM_THREADS": "1"},
    )


def test_a_dry_run_looks_at_everything_and_touches_nothing(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    done = command(tmp_path, *overrides, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    checks = {c["check"]: c for c in told["checks"]}
    assert set(checks) >= CHECKS
    assert {c["verdict"] for c in checks.values()} == {"ok"}
    assert told["plan"]["batches per epoch"] == "6"
    assert list(tmp_path.iterdir()) == []


def test_the_model_it_makes_is_the_one_that_is_trained(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    first, second = tmp_path / "a" / "model.pt", tmp_path / "b" / "model.pt"
    short = (*overrides, "trainer.epochs=1")
    run(Options(save=first, overrides=short, dry_run=True))
    run(Options(save=first, overrides=short))
    run(Options(save=second, overrides=short))
    assert first.read_bytes() == second.read_bytes()


BAD = [
    ("data.fidelity_datasets.1=nowhere.h5", "data 1"),
    ("data.fidelity_datasets.1={dir}/sae0.yaml", "data 1"),
    ("data.sae.energy.files.1={dir}/fid0.h5", "SAE 1"),
    ("data.sae.energy.files.1={dir}/h_only.yaml", "SAE 1"),
    ("data.val_fraction=0", "preparation"),
    ("optimizer.class=subprocess.Popen", "preparation"),
    ("data.fidelity_weights.7=1", "preparation"),
]


@pytest.mark.parametrize(("override", "name"), BAD)
def test_a_failed_check_ends_as_training_would(
    folder: Path, tmp_path: Path, overrides: tuple[str, ...], override: str, name: str
) -> None:
    (folder / "h_only.yaml").write_text("1: -13.6\n")
    given = (*overrides, override.format(dir=folder))
    options = Options(save=tmp_path / "model.pt", overrides=given)
    with pytest.raises(MLFFError) as caught:
        run(options)
    summary = run(dataclasses.replace(options, dry_run=True))
    assert type(summary.failure) is type(caught.value)
    assert str(summary.failure) == str(caught.value)
    failed = [c for c in summary.data["checks"] if c["verdict"] == "failed"]
    assert [c["check"] for c in failed] == [name]
    assert failed[0]["exit_code"] == caught.value.exit_code
    assert list(tmp_path.iterdir()) == []


def test_the_command_shows_the_table_and_ends_with_the_code(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    done = command(tmp_path, *overrides, "data.fidelity_datasets.1=nowhere.h5")
    assert done.returncode == 3
    assert "failed" in done.stdout
    assert "nowhere.h5" in done.stdout
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr
    told = command(tmp_path, *overrides, "data.fidelity_datasets.1=nowhere.h5", "--json")
    assert told.returncode == 3
    assert any(c.get("exit_code") == 3 for c in json.loads(told.stdout)["checks"])
