"""`mlff project-forces`: the written forces are W f, whatever reads, splits or shares the work."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import pickle
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from mlff_cli.coarse.forces.aggforce_engine import INSTALL
from mlff_cli.coarse.forces.force_map import GAS_CONSTANT
from mlff_cli.coarse.forces.noise import frame_noise
from mlff_cli.core.errors import DataError, NumericalError
from mlff_cli.core.reporting import NullReporter, Summary
from mlff_cli.core.runtime import StopRequest
from mlff_cli.core.tasks import Here
from mlff_cli.data.beads.cg_npz import CGSet
from mlff_cli.stages.project_forces import Options, run
from tests.dask_commands import local_cluster
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
    assert (bound["frames"], bound["of"]) == (60, "held-out frames")
    assert bound["total"] == pytest.approx(scores["held_out"], rel=1e-5)
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
    monkeypatch.setattr("mlff_cli.data.beads.force_rows.TASK_BYTES", 24 * 16 * 7)
    monkeypatch.setattr("mlff_cli.data.trajectories.opening.CHUNK_BYTES", 24 * 16 * 3)
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


def test_noise_moves_beads_and_forces_as_the_formula_says(tmp_path: Path) -> None:
    """R = M r + sigma eps, F = W f + (W M^T - 1) kT eps / sigma, with W M^T other than 1."""
    case = cases.case(tmp_path)
    sigma = 0.2
    found, _, _ = project(case, noise=sigma, seed=9)
    W, M = found.maps[0], found.mappings[0]
    excess = W @ M.T - np.eye(len(W))
    eps = frame_noise(9, 0, np.arange(240), len(W))
    file = np.load(case[0][0])
    r, f = file["R"].astype(float), file["F"].astype(float)
    kT = GAS_CONSTANT * cases.TEMPERATURE
    F = np.einsum("ij,tjc->tic", W, f) + np.einsum("ij,tjc->tic", excess, eps) * kT / sigma
    np.testing.assert_allclose(found.R, np.einsum("ij,tjc->tic", M, r) + sigma * eps, atol=1e-5)
    np.testing.assert_allclose(found.F, F, atol=1e-4)
    molecule = found.report["molecules"][0]
    assert molecule["noise"] == {"sigma": sigma, "temperature": cases.TEMPERATURE}
    assert molecule["consistency"] == pytest.approx(np.abs(excess).max())
    assert molecule["consistency"] > 1e-3
    scores = molecule["mean_square_force"]
    assert set(scores) == {"basic", "optimal", "noise"}
    assert scores["noise"]["training"] < scores["optimal"]["training"]
    mean = 0.8 * scores["noise"]["training"] + 0.2 * scores["noise"]["held_out"]
    assert np.mean(found.F.astype(float) ** 2) == pytest.approx(mean, rel=0.05)


def test_noise_on_the_basic_map_leaves_its_forces(tmp_path: Path) -> None:
    case = cases.case(tmp_path)
    plain, _, _ = project(case, "a.npz", method="basic")
    noisy, _, _ = project(case, "b.npz", method="basic", noise=0.1)
    np.testing.assert_allclose(noisy.F, plain.F, atol=1e-4)
    assert np.std(noisy.R - plain.R) == pytest.approx(0.1, rel=0.05)


def test_the_basic_map_does_without_the_optimal_one(tmp_path: Path) -> None:
    """Too few frames for an optimal map are enough for sums."""
    found, _, _ = project(cases.case(tmp_path, (2,)), method="basic")
    assert set(found.report["molecules"][0]["mean_square_force"]) == {"basic"}
    assert found.report["molecules"][0]["condition"] is None


def test_no_holdout_is_said_by_null(tmp_path: Path) -> None:
    found, summary, _ = project(cases.case(tmp_path), holdout=0.0)
    molecule = found.report["molecules"][0]
    assert molecule["frames"]["held_out"] == 0
    assert molecule["mean_square_force"]["optimal"]["held_out"] is None
    assert summary.tables[1].rows[1][3] == "-"
    assert molecule["unlearnable"]["bound"] is None
    assert any("no bound on the variance" in note for note in summary.tables[2].notes)


def test_the_basic_map_is_bounded_by_all_frames(tmp_path: Path) -> None:
    """It is fitted on none."""
    case = cases.case(tmp_path)
    for holdout in (0.0, 0.2):
        found, _, _ = project(case, method="basic", holdout=holdout, force=True)
        bound = found.report["molecules"][0]["unlearnable"]
        assert (bound["frames"], bound["of"]) == (240, "all frames")
        assert bound["total"] == pytest.approx(np.mean(found.F.astype(float) ** 2), rel=1e-5)


def test_what_is_proposed_for_few_frames_is_no_silent_trap(tmp_path: Path) -> None:
    """Five frames determine no weights: the l2 that is proposed makes a map, and a warning."""
    beads = cases.molecule("long", 12)
    x, f = cases.dynamics(5, n=12)
    path = cases.trajectory(tmp_path / "t.npz", x, f)
    every = cases.block(beads, x, np.arange(5))
    case = [path], cases.mapped(tmp_path / "m.npz", [beads], [cases.source(path, 5)], [every])
    with pytest.raises(NumericalError, match="fewer than the 24 groups") as caught:
        project(case)
    remedy = str(caught.value.remedy)
    assert remedy.startswith("use more frames")
    assert "cv" not in remedy  # four frames to fit on make no five folds
    for l2 in (0.03, float(remedy.partition("as --l2 ")[2])):
        found, _, warnings = project(case, l2=l2, force=True)
        assert any("use more frames" in text for text in warnings)
    fitted = np.mean(found.F.astype(float) ** 2, axis=(1, 2))
    assert fitted.min() > 0.05 * fitted.max()  # forces are there in every frame


def test_cross_validation_is_told(tmp_path: Path) -> None:
    found, _, _ = project(cases.case(tmp_path, (60,)), l2="cv")
    molecule = found.report["molecules"][0]
    told = molecule["cross_validation"]
    at = int(np.nanargmin(np.array(told["held_out"], float)))
    assert molecule["l2"] == told["grid"][at]
    n = molecule["frames"]["training"]
    assert molecule["l2_of_aggforce"] == pytest.approx(3 * n * molecule["l2"])


def test_a_map_that_fits_noise_is_said_to(tmp_path: Path) -> None:
    """White forces: sums over groups are best, and ten frames mislead."""
    beads = cases.molecule()
    x, _ = cases.dynamics(10)
    f = np.random.default_rng(0).normal(0.0, 10.0, x.shape)
    path = cases.trajectory(tmp_path / "t.npz", x, f)
    sources = [cases.source(path, 10)]
    mapped = cases.mapped(
        tmp_path / "m.npz", [beads], sources, [cases.block(beads, x, np.arange(10))]
    )
    _, _, warnings = project(([path], mapped), constraints="topology")
    assert any("use more frames, or --l2 cv" in text for text in warnings)


CONSTRAINTS = [
    ("none", 0, 0),
    ("topology", 4, 12),
    ("auto", 4, 12),
]


@pytest.mark.parametrize(("choice", "groups", "atoms"), CONSTRAINTS)
def test_constraints(tmp_path: Path, choice: str, groups: int, atoms: int) -> None:
    found, _, _ = project(cases.case(tmp_path), constraints=choice)
    told = found.report["molecules"][0]["constraints"]
    assert (told["groups"], told["atoms"]) == (groups, atoms)


def test_flexible_bonds_are_no_constraints(tmp_path: Path) -> None:
    found, _, _ = project(cases.case(tmp_path, rigid=False))
    assert found.report["molecules"][0]["constraints"]["groups"] == 0


def test_constraints_of_a_file(tmp_path: Path) -> None:
    case = cases.case(tmp_path)
    file = tmp_path / "rigid.txt"
    file.write_text("# pairs\n0 1\n1 2\n")
    found, _, _ = project(case, constraints=str(file))
    told = found.report["molecules"][0]["constraints"]
    assert (told["groups"], told["atoms"], told["from_topology"]) == (1, 3, None)
    assert np.ptp(found.maps[0][:, :3], axis=1).max() == 0.0
    assert str(file) in found.metadata["provenance"]["inputs"]


def test_what_a_trajectory_records_is_believed_and_contradictions_are_told(tmp_path: Path) -> None:
    beads = cases.molecule()
    x, f = cases.dynamics(80, rigid=False)
    record = np.array(json.dumps({"constraints": "hbonds"}))
    path = cases.trajectory(tmp_path / "t.npz", x, f, metadata=record)
    every = cases.block(beads, x, np.arange(80))
    mapped = cases.mapped(tmp_path / "m.npz", [beads], [cases.source(path, 80)], [every])
    found, _, warnings = project(([path], mapped))
    assert found.report["molecules"][0]["constraints"]["groups"] == 4
    assert any("records constrained bonds to hydrogen" in text for text in warnings)


def test_solvent_in_the_trajectory_is_left_out(tmp_path: Path) -> None:
    """Atoms of the molecule stand anywhere in the trajectory; files of constraints count those."""
    beads = cases.molecule()
    x, f = cases.dynamics(80)
    rng = np.random.default_rng(0)
    places = np.sort(rng.choice(25, cases.N_ATOMS, replace=False))
    wide_x, wide_f = rng.normal(0.0, 50.0, (2, 80, 25, 3))
    wide_x[:, places], wide_f[:, places] = x, f
    path = tmp_path / "t.npz"
    np.savez(path, R=wide_x.astype("float32"), F=wide_f.astype("float32"))
    some = dataclasses.replace(beads, atom_index=places.astype(np.int32))
    every = cases.block(beads, x, np.arange(80))
    mapped = cases.mapped(tmp_path / "m.npz", [some], [cases.source(path, 80)], [every])
    found, _, _ = project(([path], mapped), "wide.npz")
    folder = tmp_path / "narrow"
    folder.mkdir()
    alone = cases.trajectory(folder / "t.npz", x, f)
    narrow = cases.mapped(folder / "m.npz", [beads], [cases.source(alone, 80)], [every])
    plain, _, _ = project(([alone], narrow))
    np.testing.assert_allclose(found.maps[0], plain.maps[0], atol=1e-12)
    file = tmp_path / "c.txt"
    outside = np.setdiff1d(np.arange(25), places)
    file.write_text(f"{places[0]} {places[1]}\n{outside[0]} {outside[1]}\n")
    listed, _, _ = project(([path], mapped), "listed.npz", constraints=str(file))
    assert listed.report["molecules"][0]["constraints"]["groups"] == 1
    assert np.ptp(listed.maps[0][:, :2], axis=1).max() == 0.0


def test_forces_in_other_units_are_the_same_forces(tmp_path: Path) -> None:
    beads = cases.molecule()
    x, f = cases.dynamics(100)
    every = cases.block(beads, x, np.arange(100))
    found = []
    for name, units, size in (
        ("a", {"R": "angstrom", "F": "kcal/mol/angstrom"}, 1.0),
        ("b", {"R": "angstrom", "F": "kJ/mol/nm"}, 41.84),
    ):
        record = np.array(json.dumps({"units": units}))
        path = cases.trajectory(tmp_path / f"{name}.npz", x, f * size, metadata=record)
        sources = [cases.source(path, 100)]
        mapped = cases.mapped(tmp_path / f"m{name}.npz", [beads], sources, [every])
        found.append(project(([path], mapped), f"cg{name}.npz")[0].F)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-3)


def test_metadata_carries_everything_on(tmp_path: Path) -> None:
    case = cases.case(tmp_path)
    found, _, _ = project(case, seed=4)
    with CGSet(tmp_path / "cg.npz") as cg, CGSet(case[1]) as before:
        assert cg.metadata["mapping"] == "ca"
        assert cg.sources == before.sources
        assert cg.species_table == before.species_table
        for name in ("source", "frame", "temperature", "molecule"):
            np.testing.assert_array_equal(cg.per_frame(name), before.per_frame(name))
    record = found.metadata["provenance"]
    assert record["seed"] == 4
    assert set(record["inputs"]) == {str(case[0][0]), str(case[1])}
    assert record["command"].startswith("mlff project-forces")


def test_a_dry_run_says_what_and_writes_nothing(tmp_path: Path) -> None:
    case = cases.case(tmp_path)
    before = sorted(p.name for p in tmp_path.iterdir())
    summary = run(*case, tmp_path / "cg.npz", Options(dry_run=True))
    assert "192 frames to fit on and 48 held out, of 1 trajectory" in summary.lines[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_torch_is_not_imported(tmp_path: Path) -> None:
    case = cases.case(tmp_path)
    code = (
        "import sys; from pathlib import Path; from mlff_cli.stages.project_forces import *;"
        f"run([Path({str(case[0][0])!r})], Path({str(case[1])!r}),"
        f" Path({str(tmp_path / 'cg.npz')!r})); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "cg.npz").exists()


def test_overruling_the_record_is_warned_about(tmp_path: Path) -> None:
    beads = cases.molecule()
    x, f = cases.dynamics(80)
    record = np.array(json.dumps({"constraints": "hbonds"}))
    path = cases.trajectory(tmp_path / "t.npz", x, f, metadata=record)
    every = cases.block(beads, x, np.arange(80))
    mapped = cases.mapped(tmp_path / "m.npz", [beads], [cases.source(path, 80)], [every])
    _, _, warnings = project(([path], mapped), constraints="none")
    assert any("in no rigid group" in text for text in warnings)
    _, _, warnings = project(([path], mapped), "auto.npz")
    assert not any("constrain" in text for text in warnings)


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """A Dask cluster of two workers, in processes of their own."""
    with local_cluster() as found:
        yield found


def test_a_cluster_changes_nothing(
    tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Partial Gram matrices are summed in one order, whoever makes them."""
    monkeypatch.setattr("mlff_cli.data.beads.force_rows.TASK_BYTES", 24 * 16 * 20)
    case = cases.case(tmp_path, (120, 60))
    alone, _, _ = project(case, "a.npz", noise=0.1, l2="cv")
    shared, _, _ = project(case, "b.npz", noise=0.1, l2="cv", scheduler=scheduler)
    np.testing.assert_allclose(shared.maps[0], alone.maps[0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(shared.F, alone.F, rtol=1e-6, atol=1e-5)
    np.testing.assert_array_equal(shared.R, alone.R)


def test_one_bead_has_a_map_and_a_bound(tmp_path: Path) -> None:
    """Nothing of one bead can be learnt: all of its force's variance."""
    beads = cases.molecule(n=1)
    x, f = cases.dynamics(60, n=1)
    path = cases.trajectory(tmp_path / "t.npz", x, f)
    every = cases.block(beads, x, np.arange(60))
    mapped = cases.mapped(tmp_path / "m.npz", [beads], [cases.source(path, 60)], [every])
    found, summary, _ = project(([path], mapped))
    bound = found.report["molecules"][0]["unlearnable"]
    assert bound["bound"] == bound["total"]
    assert bound["distance"] is None
    assert summary.tables


@pytest.mark.skipif(
    importlib.util.find_spec("aggforce") is None, reason=f"aggforce is absent: {INSTALL}"
)
def test_aggforce_finds_the_same_map(tmp_path: Path) -> None:
    case = cases.case(tmp_path)
    for options in ({"method": "basic"}, {"method": "optimal"}, {"l2": 2.0}):
        ours, _, _ = project(case, "a.npz", force=True, **options)
        theirs, _, _ = project(case, "b.npz", force=True, engine="aggforce", **options)
        np.testing.assert_allclose(theirs.maps[0], ours.maps[0], atol=1e-6)
        assert theirs.report["molecules"][0]["difference_from_native"] < 1e-6


class Sizes(Here):
    """This process, as if its arguments and results were handed to another."""

    sizes: ClassVar[list[int]] = []

    def map(self, tasks: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        for task in tasks:
            sent = pickle.dumps(task)
            (found,) = super().map([pickle.loads(sent)])
            result = pickle.dumps(found)
            self.sizes.append(len(sent) + (len(result) if task[0] == "gram" else 0))
            yield pickle.loads(result)


def test_little_is_handed_to_workers_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many small pieces: neither a Gram matrix nor the map goes with each of them."""
    n, n_frames = 60, 600  # 120 rigid groups of 240 atoms
    beads = cases.molecule("long", n)
    x, f = cases.dynamics(n_frames, n=n)
    path = cases.trajectory(tmp_path / "t.npz", x, f)
    every = cases.block(beads, x, np.arange(n_frames))
    case = (
        [path],
        cases.mapped(tmp_path / "m.npz", [beads], [cases.source(path, n_frames)], [every]),
    )
    whole, _, _ = project(case, "a.npz")
    monkeypatch.setattr("mlff_cli.data.beads.force_rows.TASK_BYTES", 24 * 4 * n * 5)
    monkeypatch.setattr(
        "mlff_cli.stages.project_forces.crew",
        lambda prepare, shared, **_: nullcontext(Sizes(prepare, shared, StopRequest())),
    )
    Sizes.sizes.clear()
    found, _, _ = project(case, "b.npz")
    np.testing.assert_allclose(found.maps[0], whole.maps[0], atol=1e-12)
    np.testing.assert_array_equal(found.R, whole.R)
    assert len(Sizes.sizes) > 100  # most of them W f of five frames
    forces = 24 * 4 * n * n_frames  # float64, as they are read in either pass
    assert sum(Sizes.sizes) < 0.25 * forces


@pytest.mark.parametrize("given", ["t.npz", "sub/../t.npz"])
def test_errors_name_files_as_they_were_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    beads = cases.molecule()
    x, f = cases.dynamics(40)
    f[30, 3] = np.nan
    path = cases.trajectory(tmp_path / "t.npz", x, f)
    every = cases.block(beads, x, np.arange(40))
    cases.mapped(tmp_path / "m.npz", [beads], [cases.source(path, 40)], [every])
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    for workers in (1, 2):
        with pytest.raises(DataError, match="finite") as caught:
            run([given], "m.npz", "cg.npz", Options(workers=workers))
        assert str(caught.value).startswith(f"{given}")
        assert str(tmp_path) not in str(caught.value)
