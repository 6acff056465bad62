"""From topology and trajectory to projected forces, in every format that has forces."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlff_cli.core.artifacts import sha256
from mlff_cli.core.errors import DataError
from mlff_cli.data.beads.cg_npz import CGSet
from mlff_cli.stages import cg_map
from mlff_cli.stages.project_forces import Options, run
from tests.data import trajectory_cases as files

T = 120
MAPPING = "N,CA,CB,C"
TRR = pytest.param(
    "trr",
    marks=pytest.mark.skipif(
        importlib.util.find_spec("MDAnalysis") is None, reason="needs the extra 'coarse'"
    ),
)
WRITERS: dict[str, Callable[..., Path]] = {
    "npz": files.write_npz,
    "h5md": files.write_h5md_file,
    "trr": files.write_trr,
    "mdcath": lambda path, x, f: files.write_mdcath(path, x, f, {"320": 2, "348": 1}),
}
SUFFIXES = {"npz": ".npz", "h5md": ".h5", "trr": ".trr", "mdcath": ".h5"}


def mapped(folder: Path, kind: str, selection: str = "") -> tuple[str, Path]:
    """A trajectory of a format, and the set mapped from it."""
    x, f = files.frames(T)
    path = WRITERS[kind](folder / f"{kind}{SUFFIXES[kind]}", x, f)
    topology = files.write_pdb(folder / "top.pdb")
    trajectory = f"{path}{selection}"
    output = folder / f"{kind}_mapped.npz"
    cg_map.run(topology, [trajectory], output, cg_map.Options(mapping=MAPPING))
    return trajectory, output


def forces(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with CGSet(path) as cg:
        W = cg.molecules[0].force_map
        F = cg.frames(slice(None)).F
        assert W is not None
        assert F is not None
        return W, F


@pytest.mark.parametrize("kind", ["h5md", TRR, "mdcath"])
def test_every_format_gives_the_same_forces(tmp_path: Path, kind: str) -> None:
    options = Options(constraints="none")
    found = []
    for name in ("npz", kind):
        trajectory, source = mapped(tmp_path, name)
        run([trajectory], source, tmp_path / f"{name}_cg.npz", options)
        found.append(forces(tmp_path / f"{name}_cg.npz"))
    np.testing.assert_allclose(found[1][0], found[0][0], atol=1e-5)
    np.testing.assert_allclose(found[1][1], found[0][1], rtol=1e-4, atol=1e-2)


def test_a_part_of_mdcath_is_recognised(tmp_path: Path) -> None:
    trajectory, source = mapped(tmp_path, "mdcath", "@320/1")
    run([trajectory], source, tmp_path / "cg.npz", Options(constraints="none"))
    W, F = forces(tmp_path / "cg.npz")
    f = files.frames(T)[1][T // 3 : 2 * T // 3]
    np.testing.assert_allclose(F, np.einsum("ij,tjc->tic", W, f), rtol=1e-4, atol=1e-3)


def cut(trajectory: Path, source: Path, keep: float) -> None:
    """Cut a file short behind the set's back, and tell the set its new digest."""
    data = trajectory.read_bytes()
    trajectory.write_bytes(data[: int(keep * len(data))])
    with np.load(source) as file:
        arrays: dict[str, Any] = dict(file)
    told = json.loads(str(arrays["sources"]))
    told[0]["sha256"] = sha256(trajectory)
    arrays["sources"] = np.array(json.dumps(told))
    np.savez(source, **arrays)


@pytest.mark.parametrize("keep", [0.95, 0.5, 0.02])
@pytest.mark.parametrize("kind", ["npz", "h5md", TRR, "mdcath"])
def test_a_file_cut_short_is_an_error(tmp_path: Path, kind: str, keep: float) -> None:
    trajectory, source = mapped(tmp_path, kind)
    cut(Path(trajectory), source, keep)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(DataError) as caught:
        run([trajectory], source, tmp_path / "cg.npz", Options(constraints="none"))
    assert trajectory in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.skipif(
    importlib.util.find_spec("MDAnalysis") is None, reason="needs the extra 'coarse'"
)
def test_frames_without_forces_do_not_count(tmp_path: Path) -> None:
    """GROMACS may write positions more often than forces."""
    x, f = files.frames(80)
    path = files.write_trr(tmp_path / "t.trr", x, f, every=2)
    source = tmp_path / "m.npz"
    made = cg_map.Options(mapping=MAPPING)
    cg_map.run(files.write_pdb(tmp_path / "top.pdb"), [path], source, made)
    run([path], source, tmp_path / "cg.npz", Options(constraints="none"))
    W, F = forces(tmp_path / "cg.npz")
    np.testing.assert_allclose(F, np.einsum("ij,tjc->tic", W, f[::2]), rtol=1e-4, atol=1e-3)
