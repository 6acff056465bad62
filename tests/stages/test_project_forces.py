"""`mlff project-forces`: the written forces are W f, whatever reads, splits or shares the work."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlff_cli.core.reporting import NullReporter, Summary
from mlff_cli.data.cg_npz import CGSet
from mlff_cli.stages.project_forces import Options, run
from tests.stages import force_cases as cases


@dataclasses.dataclass
class Written:
    """What a run left."""

    R: np.ndarray
    F: np.ndarray
    maps: list[np.ndarray]
    mappings: list[np.ndarray]
    report: dict[str, Any]
    metadata: dict[str, Any]


def read(path: Path) -> Written:
    with CGSet(path) as cg:
        frames = cg.frames(slice(None))
        assert frames.F is not None
        maps, mappings = [], []
        for m in cg.molecules:
            assert m.force_map is not None
            assert m.mapping is not None
            maps.append(m.force_map)
            mappings.append(m.mapping)
        return Written(frames.R, frames.F, maps, mappings, cg.metadata["force_map"], cg.metadata)


def project(
    case: tuple[list[Path], Path], name: str = "cg.npz", **options: Any
) -> tuple[Written, Summary, list[str]]:
    trajectories, mapped = case
    output = mapped.with_name(name)
    reporter = NullReporter()
    summary = run(trajectories, mapped, output, Options(**options), reporter)
    return read(output), summary, reporter.warnings


METHODS = [{"method": "basic"}, {"method": "optimal"}, {"l2": 3.0}, {"l2": "cv"}]


@pytest.mark.parametrize("options", METHODS)
def test_forces_are_the_map_times_the_forces_of_the_trajectories(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    case = cases.case(tmp_path, (240, 60))
    found, _, _ = project(case, **options)
    W, M = found.maps[0], found.mappings[0]
    np.testing.assert_allclose(W @ M.T, np.eye(len(W)), atol=1e-10)
    for group in ([0, 1, 2], [4, 5, 6]):
        assert np.ptp(W[:, group], axis=1).max() == 0.0
    f = np.concatenate([np.load(path)["F"] for path in case[0]]).astype(float)
    np.testing.assert_allclose(found.F, np.einsum("ij,tjc->tic", W, f), atol=1e-4)
    with CGSet(case[1]) as cg:
        np.testing.assert_array_equal(found.R, cg.frames(slice(None)).R)


def test_the_report_is_what_the_written_forces_are(tmp_path: Path) -> None:
    """Residuals from Gram matrices are mean squares of the forces in the file."""
    found, summary, warnings = project(cases.case(tmp_path), holdout=0.25)
    molecule = found.report["molecules"][0]
    scores = molecule["mean_square_force"]["optimal"]
    n = molecule["frames"]
    assert (n["training"], n["held_out"]) == (180, 60)
    both = (n["training"] * scores["training"] + n["held_out"] * scores["held_out"]) / 240
    assert both == pytest.approx(np.mean(found.F.astype(float) ** 2), rel=1e-5)
    basic = molecule["mean_square_force"]["basic"]
    assert scores["training"] <= basic["training"]
    assert np.mean(scores["held_out_of_beads"]) == pytest.approx(scores["held_out"], rel=1e-5)
    assert molecule["consistency"] < 1e-10
    assert molecule["condition"] >= 1.0
    assert molecule["constraints"]["groups"] == 4
    assert molecule["constraints"]["from_topology"] == 8
    assert molecule["constraints"]["from_trajectory"] == 8
    bound = molecule["unlearnable"]
    assert 0.0 < bound["bound"] <= bound["total"]
    assert summary.data["molecules"] == json.loads(json.dumps(found.report["molecules"]))
    assert [table.title.split(",")[0] for table in summary.tables] == [
        "constraints",
        "mean squared CG force",
        "force map",
    ]
    assert all("names no units" in text for text in warnings)


def test_added_constraint_forces_change_nothing(tmp_path: Path) -> None:
    """Forces along rigid bonds, opposite on their ends, are not seen by any map."""
    beads = cases.molecule()
    x, f = cases.dynamics(200)
    pulled = f.copy()
    rng = np.random.default_rng(5)
    for i, j in [(4 * k, 4 * k + h) for k in range(cases.N_RESIDUES) for h in (1, 2)]:
        along = (x[:, j] - x[:, i]) * rng.normal(0.0, 50.0, (200, 1))
        pulled[:, i] += along
        pulled[:, j] -= along
    found = []
    for name, forces in (("a", f), ("b", pulled)):
        folder = tmp_path / name
        folder.mkdir()
        path = cases.trajectory(folder / "t.npz", x, forces, dtype="float64")
        every = cases.block(beads, x, np.arange(200))
        sources = [cases.source(path, 200)]
        mapped = cases.mapped(folder / "m.npz", [beads], sources, [every])
        found.append(project(([path], mapped))[0])
    np.testing.assert_allclose(found[0].maps[0], found[1].maps[0], atol=1e-9)
    np.testing.assert_allclose(found[0].F, found[1].F, atol=1e-4)


def test_the_same_input_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    case = cases.case(tmp_path)
    for name in ("a.npz", "b.npz"):
        project(case, name, noise=0.1, seed=3)
    project(case, "c.npz", noise=0.1, seed=4)
    a, b, c = ((tmp_path / f"{name}.npz").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_the_size_of_pieces_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = cases.case(tmp_path, (240, 60))
    whole, _, _ = project(case, "a.npz", noise=0.1)
    monkeypatch.setattr("mlff_cli.data.force_rows.TASK_BYTES", 24 * 16 * 7)
    monkeypatch.setattr("mlff_cli.data.trajectory.CHUNK_BYTES", 24 * 16 * 3)
    pieces, _, _ = project(case, "b.npz", noise=0.1)
    np.testing.assert_allclose(pieces.maps[0], whole.maps[0], atol=1e-12)
    np.testing.assert_allclose(pieces.F, whole.F, rtol=1e-6, atol=1e-5)
    np.testing.assert_array_equal(pieces.R, whole.R)


def test_workers_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = cases.case(tmp_path, (120, 60))
    alone, _, _ = project(case, "a.npz", noise=0.1)
    shared, _, _ = project(case, "b.npz", noise=0.1, workers=2)
    np.testing.assert_allclose(shared.maps[0], alone.maps[0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(shared.F, alone.F, rtol=1e-6, atol=1e-5)
    np.testing.assert_array_equal(shared.R, alone.R)


def test_frame_order_and_renamed_trajectories_change_nothing(tmp_path: Path) -> None:
    """Frames in any order, paths other than those that were mapped, given in another order."""
    beads = cases.molecule()
    paths, x = [], []
    for i in range(2):
        x.append(cases.dynamics(90, seed=i))
        paths.append(cases.trajectory(tmp_path / f"t{i}.npz", *x[-1], dtype="float64"))
    sources = [cases.source(path, 90) for path in paths]
    order = np.random.default_rng(1).permutation(90)
    sets = []
    for name, frames in (("plain", np.arange(90)), ("shuffled", order)):
        blocks = [cases.block(beads, x[i][0], frames, at=i) for i in range(2)]
        sets.append(cases.mapped(tmp_path / f"{name}.npz", [beads], sources, blocks))
    plain, _, _ = project((paths, sets[0]), "a.npz", noise=0.05)
    moved = [path.rename(tmp_path / f"moved_{path.name}") for path in paths]
    shuffled, _, _ = project((moved[::-1], sets[1]), "b.npz", noise=0.05)
    np.testing.assert_allclose(shuffled.maps[0], plain.maps[0], atol=1e-10)
    for k in range(2):
        rows = slice(90 * k, 90 * (k + 1))
        np.testing.assert_allclose(shuffled.F[rows], plain.F[rows][order], rtol=1e-5, atol=1e-4)
        np.testing.assert_array_equal(shuffled.R[rows], plain.R[rows][order])


def test_frames_that_were_not_mapped_count_for_nothing(tmp_path: Path) -> None:
    beads = cases.molecule()
    x, f = cases.dynamics(200)
    f[1::2] = 1e6
    path = cases.trajectory(tmp_path / "t.npz", x, f)
    some = cases.block(beads, x, np.arange(0, 200, 2))
    mapped = cases.mapped(tmp_path / "m.npz", [beads], [cases.source(path, 200)], [some])
    found, _, _ = project(([path], mapped))
    assert np.abs(found.F).max() < 1e3


def test_several_molecules_have_maps_of_their_own(tmp_path: Path) -> None:
    """Each as if it were alone, whatever the others are, and padded to the largest."""
    sizes = (3, 5)
    molecules = [cases.molecule(f"m{n}", n) for n in sizes]
    paths, blocks, sources, alone = [], [], [], []
    for k, (n, beads) in enumerate(zip(sizes, molecules, strict=True)):
        x, f = cases.dynamics(100, seed=n, n=n)
        paths.append(cases.trajectory(tmp_path / f"t{n}.npz", x, f))
        sources.append(cases.source(paths[-1], 100, k))
        blocks.append(cases.block(beads, x, np.arange(100), k=k, at=k))
        single = cases.mapped(
            tmp_path / f"m{n}.npz",
            [beads],
            [cases.source(paths[-1], 100)],
            [dataclasses.replace(blocks[-1], molecule=0, source=np.zeros(100, np.int32))],
        )
        alone.append(project(([paths[-1]], single), f"cg{n}.npz")[0])
    # in two pieces each, mixed
    pieces = [
        dataclasses.replace(
            blocks[k],
            **{
                name: getattr(blocks[k], name)[rows]
                for name in ("R", "source", "frame", "temperature")
            },
        )
        for rows in (slice(0, 40), slice(40, 100))
        for k in (0, 1)
    ]
    combined = cases.mapped(tmp_path / "all.npz", molecules, sources, pieces)
    found, summary, _ = project((paths, combined))
    assert [r["molecule"] for r in found.report["molecules"]] == ["m3", "m5"]
    assert len(summary.tables[1].rows) == 4
    for k, n in enumerate(sizes):
        np.testing.assert_allclose(found.maps[k], alone[k].maps[0], atol=1e-12)
        with CGSet(tmp_path / "cg.npz") as cg:
            rows = np.flatnonzero(cg.per_frame("molecule") == k)
        np.testing.assert_allclose(found.F[rows, :n], alone[k].F, atol=1e-4)
        assert not found.F[rows, n:].any()
        ours, theirs = (
            report["molecules"][i]["mean_square_force"]["optimal"]
            for report, i in ((found.report, k), (alone[k].report, 0))
        )
        assert ours["held_out"] == pytest.approx(theirs["held_out"], rel=1e-12)
