"""The command that a file records makes the same bytes again, under any name."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from mlff_cli.cli.app import app
from mlff_cli.data.beads.cg_npz import CGSet
from mlff_cli.data.beads.prior_file import read_prior
from mlff_cli.data.trajectories.opening import open_trajectory
from tests.data.trajectory_cases import frames, write_npz, write_pdb
from tests.synthetic import write_dataset

T = 300.123456789
X, F = frames(1200)


def of_set(path: Path) -> dict[str, Any]:
    with CGSet(path) as cg:
        return dict(cg.metadata["provenance"])


def of_prior(path: Path) -> dict[str, Any]:
    return read_prior(path).provenance


def of_sae(path: Path) -> dict[str, Any]:
    mark = "# provenance: "
    line = next(x for x in path.read_text().splitlines() if x.startswith(mark))
    return dict(json.loads(line.removeprefix(mark)))


def of_trajectory(path: Path) -> dict[str, Any]:
    with open_trajectory(path) as trajectory:
        return dict(trajectory.facts["provenance"])


COMMANDS = [
    ("cg-map top.pdb t.npz --mapping N,CA,CB,C --stride 2", "npz", of_set),
    (f"cg-map top.pdb t.npz --temperature {T!r} --termini --frames 5 --seed 7", "npz", of_set),
    ("project-forces t.npz mapped.npz --noise 0.12345678 --holdout 0.23456789", "npz", of_set),
    ("project-forces t.npz mapped.npz --l2 0.123456789012", "npz", of_set),
    ("fit-prior mapped.npz --no-by-type --min-samples 77 --no-figure", "yaml", of_prior),
    ("convert mapped.npz", "npz", of_set),
    ("convert t.npz --top top.pdb", "h5", of_trajectory),
    ("calc-sae fid0.h5 --percentiles 1.23456789,98.7654321 --seed 3", "yaml", of_sae),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_pdb(folder / "top.pdb")
    write_npz(folder / "t.npz", X, F, temperature=np.full(len(X), T))
    write_dataset(folder / "fid0.h5", 200)
    line = f"cg-map {folder}/top.pdb {folder}/t.npz --mapping N,CA,CB,C -o {folder}/mapped.npz"
    done = CliRunner().invoke(app, shlex.split(line))
    assert done.exit_code == 0, done.output
    return folder


@pytest.mark.parametrize(("line", "suffix", "read"), COMMANDS)
def test_a_recorded_command_makes_the_same_bytes(
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    suffix: str,
    read: Callable[[Path], dict[str, Any]],
) -> None:
    monkeypatch.chdir(world)
    first, second = tmp_path / f"first.{suffix}", tmp_path / f"second.{suffix}"
    flag = [] if line.startswith("calc-sae") else ["-o"]
    done = CliRunner().invoke(app, [*shlex.split(line), *flag, str(first)])
    assert done.exit_code == 0, done.output
    told = shlex.split(read(first)["command"])
    done = CliRunner().invoke(app, [*told[1:], *flag, str(second)])
    assert done.exit_code == 0, done.output
    assert second.read_bytes() == first.read_bytes()
