"""The folder of an interrupted run: complete or not there, and never another run's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.data.trajectories.partial_run import PartialRun

CONFIG = {"time": 1.0, "temperatures": (300.0, 400.0), "peptide": None}


def begun(tmp_path: Path) -> PartialRun:
    partial = PartialRun(tmp_path / "a.h5")
    partial.folder.mkdir()
    partial.begin(CONFIG, "<System/>")
    partial.trajectory.write_bytes(b"frames")
    return partial


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    partial = begun(tmp_path)
    assert not partial.complete  # without a state nothing continues
    for step in (0, 5):
        arrays = {"step": np.asarray(step), "blob": np.frombuffer(b"\0\1", dtype="uint8")}
        partial.save(arrays)
        assert PartialRun(tmp_path / "a.h5").complete
        found = partial.load()
        assert found["step"] == step
        np.testing.assert_array_equal(found["blob"], [0, 1])
    assert {p.name for p in partial.folder.iterdir()} == {
        "config.json",
        "system.xml",
        "trajectory.h5",
        "state.npz",
    }


def test_every_difference_is_named(tmp_path: Path) -> None:
    partial = begun(tmp_path)
    partial.require_same(CONFIG)
    with pytest.raises(UsageError, match=r"time was 1.0, is 2.0; new was None, is 3") as error:
        partial.require_same({**CONFIG, "time": 2.0, "new": 3})
    assert "--force" in str(error.value.remedy)
    partial.config.write_text('{"time": ')
    with pytest.raises(DataError, match="cannot be read"):
        partial.require_same(CONFIG)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_damaged_state_is_told(tmp_path: Path, share: float) -> None:
    partial = begun(tmp_path)
    partial.save({"step": np.arange(100)})
    whole = partial.state.read_bytes()
    partial.state.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match="cannot be read"):
        partial.load()


@pytest.mark.parametrize("change", [lambda b: b"", lambda b: b[:-3], lambda b: b"<" + b[2:] + b" "])
def test_another_system_is_told(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    partial = begun(tmp_path)
    partial.system.write_bytes(change(partial.system.read_bytes()))
    with pytest.raises(DataError, match="is not what was written") as error:
        partial.require_same(CONFIG)
    assert "--force" in str(error.value.remedy)


def test_the_frames_become_the_output(tmp_path: Path) -> None:
    partial = begun(tmp_path)
    partial.save({"step": np.asarray(1)})
    (tmp_path / "a.h5").write_text("old")
    partial.finish(tmp_path / "a.h5", force=True)
    assert (tmp_path / "a.h5").read_bytes() == b"frames"
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_a_strangers_file_survives(tmp_path: Path) -> None:
    partial = begun(tmp_path)
    (partial.folder / "notes.txt").write_text("mine")
    partial.remove()
    assert [p.name for p in partial.folder.iterdir()] == ["notes.txt"]
