"""`mlff convert` of trajectories: frames stay what they are, in any format and order."""

from __future__ import annotations

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest

from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.core.reporting import NullReporter
from mlff_cli.core.units import KCAL_MOL
from mlff_cli.data.beads.cg_npz import CGSet
from mlff_cli.data.trajectories.opening import open_trajectory
from mlff_cli.data.trajectories.topology_file import bonded_pairs
from mlff_cli.stages.convert import Options, run
from tests.data.cg_sets import seed_set
from tests.data.trajectory_cases import (
    EDGE,
    Z,
    frames,
    topology,
    write_dcd,
    write_mdcath,
    write_npz,
    write_pdb,
    write_trr,
    write_xtc,
)
from tests.open_files import room_for

X, F = frames(12)


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return write_pdb(tmp_path / "top.pdb")


def test_through_every_format_and_back(tmp_path: Path, top: Path) -> None:
    """TRR -> H5MD -> NPZ -> H5MD: the same frames, forces, boxes; residues as long as H5MD."""
    source = write_trr(tmp_path / "a.trr", X, F)
    summary = run([source], tmp_path / "b.h5md", Options(top=top))
    assert summary.data["frames"] == 12
    run([tmp_path / "b.h5md"], tmp_path / "c.npz", Options())
    run([tmp_path / "c.npz"], tmp_path / "d.h5", Options(top=top))
    for name in ("b.h5md", "c.npz", "d.h5"):
        with open_trajectory(tmp_path / name) as trajectory:
            found = trajectory.read(np.arange(12), forces=True)
            assert not trajectory.notes, name
            np.testing.assert_allclose(found.positions, X, atol=2e-5)
            np.testing.assert_allclose(found.forces, F, rtol=1e-5)
            np.testing.assert_allclose(found.box, np.tile(np.eye(3) * EDGE, (12, 1, 1)), rtol=1e-6)
            if trajectory.format == "h5md":
                assert trajectory.topology is not None
                assert [r.name for r in trajectory.topology.residues] == ["ACE", "ALA", "NME"]
                np.testing.assert_array_equal(
                    bonded_pairs(trajectory.topology), bonded_pairs(topology())
                )
            record = trajectory.facts["provenance"]
            assert len(record["inputs"]) == 1 + (name != "c.npz")


def test_inputs_follow_one_another(tmp_path: Path, top: Path) -> None:
    mdcath = write_mdcath(tmp_path / "m.h5", X, F, {"320": 2, "450": 1})
    npz = write_npz(tmp_path / "n.npz", X[:5] + 1, F[:5])
    inputs = [Path(f"{mdcath}@450"), npz, Path(f"{mdcath}@320/1")]
    summary = run(inputs, tmp_path / "all.npz", Options(top=top))
    assert list(summary.data["inputs"].values()) == [4, 5, 4]
    with open_trajectory(tmp_path / "all.npz") as trajectory:
        found = trajectory.read(np.arange(13), forces=True)
    np.testing.assert_array_equal(found.positions, np.concatenate([X[8:], X[:5] + 1, X[4:8]]))
    np.testing.assert_array_equal(found.forces, np.concatenate([F[8:], F[:5], F[4:8]]))
    assert found.temperature is None  # the NPZ file has none


def test_more_inputs_than_can_be_open(tmp_path: Path, top: Path) -> None:
    inputs = [write_npz(tmp_path / f"{k}.npz", X[:2] + 0.01 * k, F[:2]) for k in range(60)]
    with room_for(20):
        run(inputs, tmp_path / "all.h5", Options(top=top))
    with open_trajectory(tmp_path / "all.h5") as trajectory:
        found = trajectory.read(np.arange(0, 120, 2)).positions
    np.testing.assert_allclose(found, [X[0] + 0.01 * k for k in range(60)], atol=1e-5)


def test_energies_temperatures_and_times_stay(tmp_path: Path, top: Path) -> None:
    more = {"E": np.linspace(-9, 9, 12), "temperature": np.tile([300.0, 400.0], 6)}
    more["time"] = np.linspace(0.7, 9.3, 12)
    source = write_npz(tmp_path / "a.npz", X.astype("float64"), F.astype("float64"), **more)
    run([source], tmp_path / "b.h5", Options(top=top))
    run([tmp_path / "b.h5"], tmp_path / "c.npz", Options())
    with open_trajectory(tmp_path / "c.npz") as trajectory:
        found = trajectory.read(np.arange(12), forces=True)
    np.testing.assert_allclose(found.positions, X, rtol=1e-14)
    np.testing.assert_allclose(found.forces, F, rtol=1e-14)
    np.testing.assert_allclose(found.energy, more["E"], rtol=1e-14)
    np.testing.assert_array_equal(found.temperature, more["temperature"])
    np.testing.assert_allclose(found.time, more["time"], rtol=1e-14)


def test_counted_frames_are_no_times(tmp_path: Path, top: Path) -> None:
    """Of a file without times H5MD counts frames, which must not pass for picoseconds."""
    source = write_npz(tmp_path / "a.npz", X, F)
    run([source], tmp_path / "b.h5", Options(top=top))
    run([tmp_path / "b.h5"], tmp_path / "c.npz", Options())
    for name in ("b.h5", "c.npz"):
        with open_trajectory(tmp_path / name) as trajectory:
            assert trajectory.read(np.arange(12)).time is None


def test_the_summary_says_what_the_output_holds(tmp_path: Path, top: Path) -> None:
    more = {"E": np.linspace(-9, 9, 12), "temperature": np.full(12, 300.0)}
    source = write_npz(tmp_path / "a.npz", X, F, time=np.arange(12.0), **more)
    summary = run([source], tmp_path / "b.xyz", Options())
    assert summary.data["fields"] == ["positions", "energy", "forces"]
    assert summary.tables[0].notes == [
        "positions, energy, forces of every frame",
        "left out, as .xyz has no place for it: temperature, time",
    ]
    summary = run([source], tmp_path / "b.npz", Options())
    assert summary.data["fields"] == ["positions", "energy", "forces", "temperature", "time"]
    assert len(summary.tables[0].notes) == 1


def test_extxyz_holds_frames_in_ev(tmp_path: Path) -> None:
    source = write_mdcath(tmp_path / "m.h5", X, F, {"320": 1})
    run([source], tmp_path / "a.xyz", Options())
    found = ase.io.read(tmp_path / "a.xyz", ":")
    assert len(found) == 12
    for atoms, x, f in zip(found, X, F, strict=True):
        np.testing.assert_array_equal(atoms.numbers, Z)
        np.testing.assert_allclose(atoms.positions, x, atol=1e-6)
        np.testing.assert_allclose(atoms.arrays["REF_forces"], f * KCAL_MOL, rtol=1e-6)
        np.testing.assert_allclose(atoms.cell[:], np.eye(3) * EDGE)
        assert atoms.pbc.all()


@pytest.mark.parametrize("name", ["a.h5", "a.npz", "a.extxyz"])
def test_the_same_inputs_give_the_same_bytes(tmp_path: Path, top: Path, name: str) -> None:
    source = write_xtc(tmp_path / "a.xtc", X)
    output = tmp_path / name
    run([source], output, Options(top=top))
    first = output.read_bytes()
    run([source], output, Options(top=top, force=True))
    assert output.read_bytes() == first


def test_what_only_some_inputs_have_is_left_out_and_said(tmp_path: Path, top: Path) -> None:
    a, b = write_npz(tmp_path / "a.npz", X, F), write_dcd(tmp_path / "b.dcd", X)
    reporter = NullReporter()
    summary = run([a, b], tmp_path / "c.npz", Options(top=top), reporter)
    assert summary.data["forces"] is False
    assert any("forces are left out" in text and "b.dcd" in text for text in reporter.warnings)
    said = [text for text in reporter.warnings if "left out" in text]
    assert f"box is left out: {a} has none" in said
    with open_trajectory(tmp_path / "c.npz") as trajectory:
        assert (trajectory.n_frames, trajectory.has_forces) == (24, False)


def test_facts_that_all_inputs_share_are_kept(tmp_path: Path, top: Path) -> None:
    def source(name: str, **facts: str) -> Path:
        units = {"R": "angstrom", "F": "kcal/mol/angstrom"}
        text = json.dumps({"units": units, **facts})
        return write_npz(tmp_path / name, X, F, metadata=np.array(text))

    a = source("a.npz", constraints="hbonds", forcefield="x")
    b = source("b.npz", constraints="hbonds", forcefield="y")
    run([a, b], tmp_path / "c.h5", Options(top=top))
    with open_trajectory(tmp_path / "c.h5") as trajectory:
        assert trajectory.facts["constraints"] == "hbonds"
        assert "forcefield" not in trajectory.facts


def test_a_dry_run_writes_nothing(tmp_path: Path, top: Path) -> None:
    source = write_trr(tmp_path / "a.trr", X, F)
    summary = run([source], tmp_path / "b.h5", Options(top=top, dry_run=True))
    assert summary.data["frames"] == 12
    assert "would convert" in summary.lines[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.trr", "top.pdb"]


def test_coarse_grained_sets_are_joined(tmp_path: Path) -> None:
    """Sets of beads go their own way, by content."""
    a, b = tmp_path / "a.npz", tmp_path / "b.npz"
    seed_set(a, [4, 4, 4])
    seed_set(b, [6, 6], seed=1)
    summary = run([a, b], tmp_path / "all.npz", Options())
    assert (summary.data["frames"], summary.data["molecules"]) == (5, 2)
    with CGSet(tmp_path / "all.npz") as joined:
        assert joined.n_frames == 5
    with pytest.raises(UsageError, match="one kind"):
        run([a, write_npz(tmp_path / "t.npz", X, F)], tmp_path / "all.npz", Options(force=True))
    with pytest.raises(UsageError, match="--top"):
        run([a], tmp_path / "c.npz", Options(top=tmp_path / "top.pdb"))


class TestRefusals:
    """Each leaves nothing behind, and says what to do."""

    @pytest.fixture(autouse=True)
    def nothing_written(self, tmp_path: Path):
        yield
        assert not (tmp_path / "out.h5").exists()
        assert not [p for p in tmp_path.iterdir() if ".tmp" in p.name]

    def refused(self, error: type[Exception], match: str, *args, **options) -> None:
        with pytest.raises(error, match=match) as caught:
            run(*args, Options(**options))
        assert caught.value.remedy  # type: ignore[attr-defined]

    def test_kinds_and_options(self, tmp_path: Path, top: Path) -> None:
        trr, out = write_trr(tmp_path / "a.trr", X, F), tmp_path / "out.h5"
        (tmp_path / "m.smi").write_text("CC\n")
        self.refused(UsageError, "one kind", [trr, tmp_path / "m.smi"], out, top=top)
        self.refused(UsageError, "--level-of-theory", [trr], out, level_of_theory="pbe")
        self.refused(UsageError, "--top", [tmp_path / "m.smi"], out, top=top)
        self.refused(UsageError, "no writer", [trr], tmp_path / "out.docx", top=top)
        self.refused(UsageError, "replace an input", [trr], trr, top=top, force=True)
        self.refused(UsageError, "exists already", [trr], top, top=top)
        self.refused(UsageError, "needs an element", [trr], out)
        self.refused(DataError, "does not exist", [trr], out, top=tmp_path / "none.pdb")

    def test_molecules_that_differ(self, tmp_path: Path) -> None:
        a, out = write_npz(tmp_path / "a.npz", X, F), tmp_path / "out.h5"
        b = tmp_path / "b.npz"
        np.savez(b, R=X[:, :-1], F=F[:, :-1], Z=Z[:-1])
        self.refused(DataError, "21 and 22 atoms", [a, b], out)
        np.savez(b, R=X, F=F, Z=Z[::-1])
        self.refused(DataError, "other elements", [a, b], out)

    def test_damage_in_the_middle(self, tmp_path: Path, top: Path) -> None:
        x, out = X.copy(), tmp_path / "out.h5"
        x[7, 3] = np.nan
        trr = write_trr(tmp_path / "a.trr", x, F)
        self.refused(DataError, "frame 7, atom 3", [trr], out, top=top)
        trr.write_bytes(trr.read_bytes()[:-5])
        self.refused(DataError, "cut short", [trr], out, top=top)
        good = write_trr(tmp_path / "b.trr", X, F)
        out.write_text("old")
        self.refused(DataError, "cut short", [good, trr], out, top=top, force=True)
        assert out.read_text() == "old"
        out.unlink()


def test_a_first_frame_wider_than_a_pdbs_columns(tmp_path: Path, top: Path) -> None:
    """The topology goes along whatever the coordinates: the frames keep them."""
    far = X.copy()
    far[0, 3] += 2e4
    write_npz(tmp_path / "a.npz", far, F, box=np.tile(np.eye(3) * 2e4, (12, 1, 1)))
    run([tmp_path / "a.npz"], tmp_path / "b.h5", Options(top=top))
    with open_trajectory(tmp_path / "b.h5") as trajectory:
        assert trajectory.topology == topology()
        np.testing.assert_allclose(trajectory.read(np.arange(12)).positions, far, atol=2e-3)
