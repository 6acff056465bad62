"""What other commands say of the sets that `mlff project-forces` made, alone and joined."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlff_cli.data.beads.cg_combine import combine
from mlff_cli.data.beads.cg_npz import CGSet
from mlff_cli.data.beads.force_map_report import force_map_report
from mlff_cli.data.descriptions import describe_set
from mlff_cli.stages import check
from mlff_cli.stages.project_forces import Options, run
from tests.stages import force_cases as cases

SIZES = (3, 5)


def mapped(folder: Path) -> tuple[list[Path], list[Path]]:
    """Trajectories of two molecules, and the set mapped from each."""
    trajectories, sets = [], []
    for n in SIZES:
        beads = cases.molecule(f"m{n}", n)
        x, f = cases.dynamics(100, seed=n, n=n)
        trajectories.append(cases.trajectory(folder / f"t{n}.npz", x, f))
        every = cases.block(beads, x, np.arange(100))
        source = cases.source(trajectories[-1], 100)
        sets.append(cases.mapped(folder / f"m{n}.npz", [beads], [source], [every]))
    return trajectories, sets


def alone(folder: Path, options: Options) -> Path:
    trajectories, sets = mapped(folder)
    run(trajectories[:1], sets[0], folder / "cg.npz", options)
    return folder / "cg.npz"


def joined_then_projected(folder: Path, options: Options) -> Path:
    trajectories, sets = mapped(folder)
    combine(sets, folder / "all.npz")
    run(trajectories, folder / "all.npz", folder / "cg.npz", options)
    return folder / "cg.npz"


def projected_then_joined(folder: Path, options: Options) -> Path:
    trajectories, sets = mapped(folder)
    made = [folder / f"cg{n}.npz" for n in SIZES]
    for trajectory, source, output in zip(trajectories, sets, made, strict=True):
        run([trajectory], source, output, options)
    combine(made, folder / "cg.npz")
    return folder / "cg.npz"


def joined_again(folder: Path, options: Options) -> Path:
    """A joined set that was projected, joined with a projected set of one molecule."""
    first = joined_then_projected(folder, options).rename(folder / "first.npz")
    beads = cases.molecule("m2", 2)
    x, f = cases.dynamics(100, seed=2, n=2)
    trajectory = cases.trajectory(folder / "t2.npz", x, f)
    every = cases.block(beads, x, np.arange(100))
    source = cases.mapped(folder / "m2.npz", [beads], [cases.source(trajectory, 100)], [every])
    run([trajectory], source, folder / "second.npz", options)
    combine([first, folder / "second.npz"], folder / "cg.npz")
    return folder / "cg.npz"


WAYS = [alone, joined_then_projected, projected_then_joined, joined_again]
Way = Callable[[Path, Options], Path]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Options(noise=0.1), "noise map, noise of 0.1 A at 300 K, l2 0"),
        (Options(l2=2.0), "optimal map, l2 2"),
        (Options(method="basic"), "basic map, l2 0"),
    ],
)
def test_check_and_info_know_the_force_map_of_every_molecule(
    tmp_path: Path, way: Way, options: Options, said: str
) -> None:
    path = way(tmp_path, options)
    with CGSet(path) as cg:
        names = [molecule.name for molecule in cg.molecules]
        reports = [force_map_report(cg.metadata, k) for k in range(len(names))]
    checks: list[dict[str, Any]] = check.run([path]).data["files"][str(path)]
    of_maps = {c["check"]: c for c in checks if c["check"].endswith("force map")}
    assert list(of_maps) == [f"{name}: force map" for name in names]
    for found in of_maps.values():
        assert found["verdict"] == "ok", found
        assert ("noise-augmented" in found["finding"]) == (options.noise is not None)
    facts = describe_set(path).facts
    assert [facts[f"forces of {name}"] for name in names] == [said] * len(names)
    for name, report in zip(names, reports, strict=True):
        assert report is not None
        assert (report["molecule"], report["method"]) == (name, options.method)


def test_a_map_that_only_claims_to_be_consistent_still_fails(tmp_path: Path) -> None:
    """The noise of one molecule excuses no other one."""
    path = joined_then_projected(tmp_path, Options(noise=0.1))
    with np.load(path) as file:
        arrays = dict(file)
    told = str(arrays["metadata"])
    at = told.rindex('"noise": {')
    arrays["metadata"] = np.array(told[:at] + '"quiet": {' + told[at + len('"noise": {') :])
    np.savez(tmp_path / "less.npz", **arrays)
    checks = check.run([tmp_path / "less.npz"]).data["files"][str(tmp_path / "less.npz")]
    verdicts = {c["check"]: c["verdict"] for c in checks if c["check"].endswith("force map")}
    assert verdicts == {"m3: force map": "ok", "m5: force map": "failed"}


def test_nothing_is_said_of_a_set_without_forces(tmp_path: Path) -> None:
    _, sets = mapped(tmp_path)
    with CGSet(sets[0]) as cg:
        assert force_map_report(cg.metadata, 0) is None
    assert force_map_report({"force_map": {"molecules": []}}, 0) is None
    assert force_map_report({"force_map": "none", "molecules": ["m"]}, 0) is None
