"""A training that finds no memory says what would have fitted, and that does fit."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from mlff_cli.data.sae import write_sae
from tests.synthetic import self_energy, write_dataset

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="needs a limit of the address space"),
]
GB = 1 << 30
ROOMY, FREE = 9 * GB, 600 << 20  # bytes; below 10 GB the finding has a decimal
KWARGS = "data.samplers.train.kwargs"


def train(folder: Path, limit: int, *words: str) -> subprocess.CompletedProcess[str]:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    given = (
        f"data.fidelity_datasets.0={folder / 'data.h5'}",
        f"data.sae.energy.files.0={folder / 'sae.yaml'}",
        "data.samplers.val.kwargs.batch_size=8",
        f"{KWARGS}.batches_per_epoch=2",
        "trainer.epochs=1",
    )
    return subprocess.run(
        [sys.executable, "-m", "mlff_cli", "train", "--preset", "small", *given, *words],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limited,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")
    write_dataset(path / "data.h5", 440, sizes=[24])
    write_sae(path / "sae.yaml", {z: float(self_energy(z)) for z in (1, 6, 7, 8)})
    return path


@pytest.fixture(scope="module")
def limit(folder: Path) -> int:
    """A limit that leaves `FREE` bytes when the first step begins."""
    done = train(folder, ROOMY, "--save", str(folder / "n.pt"), "--dry-run", "--json")
    checks = {c["check"]: c["finding"] for c in json.loads(done.stdout)["checks"]}
    found = re.search(r"of ([\d.]+) GB for", checks["memory"])
    assert found, checks["memory"]
    left = float(found[1]) * GB
    if left < 7 * GB:
        pytest.skip("the machine has less memory than the limit leaves: it cannot be measured")
    return int(ROOMY - left) + FREE


BIG = (f"{KWARGS}.batch_size=400", f"{KWARGS}.split=1")


def test_the_suggested_batch_fits_under_the_same_limit(folder: Path, limit: int) -> None:
    failed = train(folder, limit, "--save", str(folder / "a.pt"), *BIG)
    assert failed.returncode == 4, failed.stderr
    assert "Traceback" not in failed.stderr
    assert "out of memory on cpu at step 1: 400 molecules of up to 24 atoms" in failed.stderr
    assert "the largest are fidelity 0 group 024 molecule" in failed.stderr
    assert not (folder / "a.pt").exists()
    advice = failed.stderr.split("remedy:")[1]
    size, split = (int(re.search(rf"{n}=(\d+)", advice)[1]) for n in ("batch_size", "split"))
    assert 20 < size < 400
    smaller = train(
        folder, limit, "--save", str(folder / "b.pt"), f"{KWARGS}.batch_size={size}", BIG[1]
    )
    assert smaller.returncode == 0, smaller.stderr
    parts = train(folder, limit, "--save", str(folder / "c.pt"), BIG[0], f"{KWARGS}.split={split}")
    assert parts.returncode == 0, parts.stderr


def test_a_dry_run_foresees_it(folder: Path, limit: int) -> None:
    done = train(folder, limit, "--save", str(folder / "d.pt"), "--dry-run", *BIG)
    assert done.returncode == 4, done.stdout
    assert "batch_size=" in done.stdout
