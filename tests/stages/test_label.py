"""`mlff label`: labels of the stored geometry, resumable to the same bytes, failures told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from mlff_cli.core.errors import DataError, MissingDependencyError, UsageError
from mlff_cli.core.reporting import NullReporter
from mlff_cli.data.grouped_hdf5 import GroupedHDF5
from mlff_cli.physics.quantum import make_engine
from mlff_cli.stages.label import Options, run
from tests.dask_commands import DaskCommands, wait_until

pytest.importorskip("tblite", reason="needs the extra 'label'")
pytest.importorskip("rdkit", reason="needs the extra 'label'")

WATER = """3
charge={charge} mult={mult}
O 0.02 0.01 0.13
H 0.80 0.05 -0.47
H -0.73 0.11 -0.51
"""


def smiles(tmp_path: Path, text: str = "CO\nC[NH3+]\nO\n") -> Path:
    path = tmp_path / "in.smi"
    path.write_text(text, encoding="utf-8")
    return path


def test_labels_belong_to_the_stored_geometry(tmp_path: Path) -> None:
    output = tmp_path / "out.h5"
    options = Options("gfn2-xtb", conformers=2, temperature=300.0, seed=3, workers=2)
    summary = run(smiles(tmp_path), output, options)
    assert summary.data["structures"] == 6
    assert summary.data["molecules"] == 3
    assert summary.data["failures"] == []
    assert not Path(f"{output}.partial").exists()
    engine = make_engine("gfn2-xtb")
    with GroupedHDF5(output) as file:
        file.validate()
        assert file.level_of_theory == "gfn2-xtb"
        record = json.loads(file.attrs["provenance"])
        assert record["versions"]["tblite"] == engine.versions["tblite"]
        assert record["seed"] == 3
        assert list(record["inputs"]) == [str(tmp_path / "in.smi")]
        assert sorted((g.n_atoms, g.n_molecules) for g in file.groups) == [(3, 2), (6, 2), (8, 2)]
        for group in file.groups:
            get = {name: group.read(name) for name in group.fields}
            for i in range(group.n_molecules):
                labels = engine(
                    get["coord"][i].astype(float),
                    get["numbers"][i],
                    int(get["charge"][i]),
                    int(get["mult"][i]),
                )
                assert get["energy"][i] == pytest.approx(float(labels["energy"]), abs=1e-9)
                np.testing.assert_allclose(get["forces"][i], labels["forces"], atol=1e-5)
                np.testing.assert_allclose(get["charges"][i], labels["charges"], atol=1e-6)
            assert len(set(get["molecule"])) == 1


def test_same_seed_same_bytes_and_only_the_labels_asked_for(tmp_path: Path) -> None:
    source = smiles(tmp_path, "CO\nO\n")
    outputs = [tmp_path / name for name in ("a.h5", "b.h5", "c.h5")]
    for output, seed, workers in zip(outputs, (1, 1, 2), (1, 2, 1), strict=True):
        options = Options("gfn1-xtb", perturb=0.05, labels=("energy",), seed=seed, workers=workers)
        run(source, output, options)
    first, second, other = (path.read_bytes() for path in outputs)
    assert first == second
    assert first != other
    with GroupedHDF5(outputs[0]) as file:
        assert {"energy"} == file.fields - {"coord", "numbers", "charge", "mult", "molecule"}


def test_failures_are_told_and_the_rest_is_kept(tmp_path: Path) -> None:
    source, output = tmp_path / "in.xyz", tmp_path / "out.h5"
    source.write_text(
        WATER.format(charge=0, mult=2) + WATER.format(charge=1, mult=2), encoding="utf-8"
    )
    reporter = NullReporter()
    summary = run(source, output, Options("gfn2-xtb", workers=1), reporter)
    assert summary.data["structures"] == 1
    (failure,) = summary.data["failures"]
    assert failure["where"] == f"{source}, frame 0"
    assert "multiplicity" in failure["error"]
    assert json.loads(Path(f"{output}.failures.json").read_text()) == [failure]
    assert any("1 structures failed" in text for text in reporter.warnings)

    # mended input: the report of the earlier run does not linger
    source.write_text(WATER.format(charge=1, mult=2), encoding="utf-8")
    run(source, output, Options("gfn2-xtb", workers=1, force=True))
    assert not Path(f"{output}.failures.json").exists()


def test_nothing_but_failures_is_an_error_and_leaves_no_output(tmp_path: Path) -> None:
    source, output = tmp_path / "in.xyz", tmp_path / "out.h5"
    source.write_text(WATER.format(charge=0, mult=2), encoding="utf-8")
    with pytest.raises(DataError, match="all 1 structures failed"):
        run(source, output, Options("gfn2-xtb", workers=1))
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["in.xyz", "out.h5.failures.json"]


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"conformers": 0}, "--conformers"),
        ({"perturb": -0.1}, "--perturb"),
        ({"perturb": float("nan")}, "--perturb"),
        ({"temperature": -1.0}, "--temperature"),
        ({"workers": -1}, "--workers"),
        ({"labels": ("spin_charges",)}, "no label spin_charges"),
        ({"method": "gfn9"}, "unknown method"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, changes: dict[str, object], rule: str) -> None:
    options = Options(**{"method": "gfn2-xtb", **changes})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=rule):
        run(smiles(tmp_path), tmp_path / "out.h5", options)
    assert [p.name for p in tmp_path.iterdir()] == ["in.smi"]


def test_a_dry_run_says_what_and_writes_nothing(tmp_path: Path) -> None:
    options = Options("gfn2-xtb", conformers=2, labels=("energy",), dry_run=True)
    summary = run(smiles(tmp_path, "CO\nC1#CC1\n"), tmp_path / "out.h5", options)
    assert summary.data["structures"] == 2
    assert "would label 2 structures" in summary.lines[0]
    assert "C1#CC1" in summary.lines[1]
    assert [p.name for p in tmp_path.iterdir()] == ["in.smi"]


def test_copies_of_a_geometry_need_a_displacement(tmp_path: Path) -> None:
    source = tmp_path / "in.xyz"
    source.write_text(WATER.format(charge=0, mult=1), encoding="utf-8")
    with pytest.raises(UsageError, match="repeat the geometries"):
        run(source, tmp_path / "out.h5", Options("gfn2-xtb", conformers=2))
    summary = run(
        source, tmp_path / "out.h5", Options("gfn2-xtb", conformers=3, perturb=0.02, workers=1)
    )
    assert summary.data["structures"] == 3


def test_bad_inputs_leave_nothing_behind(tmp_path: Path) -> None:
    output = tmp_path / "out.h5"
    for text, rule in (("", "no structures"), ("CCO\nrubbish\n", "not a valid SMILES")):
        with pytest.raises(DataError, match=rule):
            run(smiles(tmp_path, text), output, Options("gfn2-xtb"))
    with pytest.raises(DataError, match="does not exist"):
        run(tmp_path / "none.smi", output, Options("gfn2-xtb"))
    assert [p.name for p in tmp_path.iterdir()] == ["in.smi"]
    output.write_bytes(b"precious")
    with pytest.raises(UsageError, match="exists already"):
        run(smiles(tmp_path), output, Options("gfn2-xtb"))
    assert output.read_bytes() == b"precious"


def test_a_cluster_labels_to_the_same_bytes(tmp_path: Path) -> None:
    """Workers of Dask's own command; one of them is killed on the way."""
    pytest.importorskip("distributed", reason="needs the extra 'cluster'")
    source = smiles(tmp_path)
    common = {"method": "gfn2-xtb", "conformers": 40, "temperature": 300.0, "seed": 2}
    run(source, tmp_path / "here.h5", Options(**common, workers=1))  # type: ignore[arg-type]
    folder, marked = tmp_path / "dask", tmp_path / "there.h5.partial" / "journal.jsonl"
    folder.mkdir()
    with DaskCommands(folder) as cluster:
        cluster.workers(2, "--pid-file", str(folder / "nannies"))

        def kill_one() -> None:
            wait_until(lambda: marked.exists() and marked.read_bytes().count(b"\n") > 9, "nothing")
            nanny = psutil.Process(int((folder / "nannies").read_text()))
            worker = next(p for p in nanny.children() if "spawn_main" in " ".join(p.cmdline()))
            worker.kill()

        thread = threading.Thread(target=kill_one)
        thread.start()
        summary = run(
            source,
            tmp_path / "there.h5",
            Options(**common, scheduler=str(cluster.file)),  # type: ignore[arg-type]
        )
        thread.join()
    assert summary.data["structures"] == 120
    assert (tmp_path / "there.h5").read_bytes() == (tmp_path / "here.h5").read_bytes()


@pytest.mark.parametrize(
    ("scheduler", "workers", "error"),
    [
        ("tcp://127.0.0.1:9", 0, MissingDependencyError),  # nobody listens at the discard port
        ("absent.json", 0, MissingDependencyError),
        ("localhost", 0, UsageError),
        ("tcp://127.0.0.1:9", 4, UsageError),
    ],
)
def test_a_cluster_that_is_not_there_ends_before_any_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scheduler: str,
    workers: int,
    error: type[Exception],
) -> None:
    pytest.importorskip("distributed", reason="needs the extra 'cluster'")
    monkeypatch.setenv("MLFF_SCHEDULER_TIMEOUT", "1")
    monkeypatch.chdir(tmp_path)
    source = smiles(tmp_path, "CO\n" * 20_000)  # conformers of them all would take minutes
    options = Options("gfn2-xtb", workers=workers, scheduler=scheduler)
    with pytest.raises(error):
        run(source, tmp_path / "out.h5", options)
    assert [p.name for p in tmp_path.iterdir()] == ["in.smi"]


COMMAND = "--method gfn2-xtb --conformers 150 --temperature 300 --seed 4 --workers 1 --no-progress"


CLUSTER_COMMAND = COMMAND.replace("--workers 1", "--scheduler ../dask/scheduler.json")


def start(folder: Path, options: str = COMMAND) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mlff_cli", "label", "in.smi", "-o", "out.h5"]
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        command + options.split(),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait_for_lines(folder: Path, process: subprocess.Popen[bytes], lines: int) -> None:
    journal = folder / "out.h5.partial" / "journal.jsonl"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if journal.exists() and journal.read_bytes().count(b"\n") >= lines:
            return
        time.sleep(0.01)
    _, errors = process.communicate()
    pytest.fail(f"labelling ended before it could be stopped: {errors.decode()}")


def test_killed_and_interrupted_runs_continue_to_the_same_bytes(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
        smiles(folder, "CCO\nCC(=O)[O-]\n")
    process = start(whole)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()

    process = start(broken)
    wait_for_lines(broken, process, 20)
    process.kill()
    process.communicate()
    journal = broken / "out.h5.partial" / "journal.jsonl"
    with journal.open("ab") as stream:
        stream.write(b'{"key": "torn')
    killed_at = journal.read_bytes().count(b"\n")
    assert not (broken / "out.h5").exists()

    process = start(broken)
    wait_for_lines(broken, process, killed_at + 20)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 75, errors.decode()
    assert "run the same command again" in " ".join(errors.decode().split())
    assert journal.read_bytes().count(b"\n") > killed_at
    assert not (broken / "out.h5").exists()

    process = start(broken)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    assert (broken / "out.h5").read_bytes() == (whole / "out.h5").read_bytes()
    assert sorted(p.name for p in broken.iterdir()) == ["in.smi", "out.h5"]


def test_a_stopped_run_on_a_cluster_continues_here_to_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="needs the extra 'cluster'")
    whole, broken, folder = (tmp_path / name for name in ("whole", "broken", "dask"))
    for place in (whole, broken, folder):
        place.mkdir()
        smiles(place, "CCO\nCC(=O)[O-]\n")
    with DaskCommands(folder) as cluster:
        cluster.worker()
        process = start(whole, CLUSTER_COMMAND)
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()
        process = start(broken, CLUSTER_COMMAND)
        wait_for_lines(broken, process, 20)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate()
    assert process.returncode == 75, errors.decode()
    assert "run the same command again" in " ".join(errors.decode().split())
    assert sorted(p.name for p in broken.iterdir()) == ["in.smi", "out.h5.partial"]

    process = start(broken)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    assert "continuing" in errors.decode()
    assert (broken / "out.h5").read_bytes() == (whole / "out.h5").read_bytes()
