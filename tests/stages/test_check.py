"""`mlff check`: a good set passes, whatever was spoilt is named with its frame and bead."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlff_cli.coarse.set_survey import stiff_bonds
from mlff_cli.core.errors import CheckFailedError, StorageError, UsageError
from mlff_cli.data.beads.cg_beads import plain_chain
from mlff_cli.data.beads.cg_npz import BeadMolecule, CGBlock
from mlff_cli.data.beads.cg_writer import write_cg
from mlff_cli.data.grouped_writer import write_grouped
from mlff_cli.stages.check import Options, run
from tests.data.cg_sets import SOURCES, chain, seed_set
from tests.data.trajectory_cases import frames as aa_frames
from tests.data.trajectory_cases import rows_of_the_molecule, write_npz, write_pdb

N, T = 8, 50
TABLE = ["ALA", "GLY", "LYS"]


def frames(seed: int = 0, n: int = N) -> CGBlock:
    """A loose coil with forces of a usual size."""
    rng = np.random.default_rng(seed)
    R = np.zeros((T, n, 3))
    R[..., 0] = 3.3 * np.arange(n)
    R[..., 1] = 1.9 * (np.arange(n) % 2)
    R += 0.1 * rng.normal(size=R.shape)
    return CGBlock(
        0,
        R=R.astype("float32"),
        F=(14.0 * rng.normal(size=R.shape)).astype("float32"),
        source=np.zeros(T, np.int32),
        frame=np.arange(T),
        temperature=np.full(T, 300.0, np.float32),
    )


def cg(path: Path, block: CGBlock, molecule: BeadMolecule | None = None) -> Path:
    write_cg(path, [molecule or chain(block.R.shape[1])], TABLE, SOURCES, {}, [block])
    return path


def verdicts(path: Path) -> dict[str, str]:
    summary = run([path])
    return {c["check"]: c["verdict"] for c in summary.data["files"][str(path)]}


def finding(path: Path, name: str) -> str:
    checks = run([path]).data["files"][str(path)]
    return next(c["finding"] for c in checks if c["check"] == name)


def test_a_good_set_passes(tmp_path: Path) -> None:
    path = cg(tmp_path / "CG.npz", frames())
    summary = run([path])
    assert summary.failure is None
    assert set(verdicts(path).values()) == {"ok"}
    assert summary.data["failed"] == summary.data["warnings"] == 0


def test_a_seeds_set_passes_with_the_warnings_it_deserves(tmp_path: Path) -> None:
    seed_set(tmp_path / "seed.npz", [4, 6, 4, 5])
    summary = run([tmp_path / "seed.npz"])
    found = {c["check"]: c for c in summary.data["files"][str(tmp_path / "seed.npz")]}
    assert "4 frames of 3 molecules, 4 to 6 beads" in found["contents"]["finding"]
    assert found["species"]["verdict"] == found["temperature"]["verdict"] == "warning"


def _set(array: str, index: Any, value: Any) -> Callable[[CGBlock], CGBlock]:
    def spoil(block: CGBlock) -> CGBlock:
        values = getattr(block, array).copy()
        values[index] = value
        return replace(block, **{array: values})

    return spoil


@pytest.mark.parametrize(
    ("spoil", "name", "verdict", "told"),
    [
        (_set("F", (9, 3), 5000.0), "outliers", "warning", "1 of 50"),
        (_set("F", ..., 0.0), "forces", "failed", "every force is zero"),
        (lambda b: replace(b, F=b.F * 41.84), "forces", "warning", "RMS per component"),
        (_set("R", (7, slice(4, None), 0), 90.0), "chain: bonds", "failed", "beads 3 and 4"),
        (_set("R", (11, 6), (0.1, 0.1, 0.1)), "chain: overlaps", "failed", "0 and 6, frame 11"),
        (lambda b: replace(b, R=b.R[[0, 0, *range(2, T)]]), "repeated frames", "warning", "1 is 0"),
        (_set("temperature", 4, 450.0), "temperature", "warning", "300, 450"),
        (_set("temperature", ..., np.nan), "temperature", "warning", "not recorded"),
        (_set("temperature", slice(7), np.nan), "temperature", "warning", "300 K, and 7 of 50"),
    ],
)
def test_what_was_spoilt_is_named(
    tmp_path: Path, spoil: Callable[[CGBlock], CGBlock], name: str, verdict: str, told: str
) -> None:
    path = cg(tmp_path / "CG.npz", spoil(frames()))
    assert verdicts(path)[name] == verdict
    assert told in finding(path, name)
    assert (run([path]).failure is not None) == (verdict == "failed")


def test_centres_of_mass_may_swing(tmp_path: Path) -> None:
    """`chain` makes beads of two atoms: what breaks a chain of atoms is nothing to them."""
    swung, soft = frames(), chain(N)
    swung.R[7, 4:, 0] += 2.6  # 3.8 becomes 6.2 A
    assert soft.mapping is not None
    stiff = replace(
        soft,
        mapping=np.eye(N),
        elements=soft.elements[:N],
        atom_bonds=soft.atom_bonds[: N - 1],
        atom_index=soft.atom_index[:N],
    )
    cg(tmp_path / "com.npz", swung, soft)
    cg(tmp_path / "ca.npz", swung, stiff)
    assert verdicts(tmp_path / "com.npz")["chain: bonds"] == "ok"
    assert verdicts(tmp_path / "ca.npz")["chain: bonds"] == "failed"
    assert "beads 3 and 4 in frame 7, 6." in finding(tmp_path / "ca.npz", "chain: bonds")
    swung.R[9, 5:] += swung.R[9, 4] + [1.5, 0, 0] - swung.R[9, 5]
    cg(tmp_path / "odd.npz", swung, soft)
    assert verdicts(tmp_path / "odd.npz")["chain: bonds"] == "warning"
    assert run([tmp_path / "odd.npz"]).failure is None


def test_bonds_are_stiff_between_atoms_near_each_other() -> None:
    """C - C is three bonds off in N(CA)C(N)CA, a disulfide five."""
    n = 7  # atoms in a row; beads of one atom but the last two
    mapping = np.zeros((4, n))
    mapping[[0, 1, 2], [0, 3, 5]] = 1.0
    mapping[3, [4, 6]] = 0.5
    molecule = replace(
        chain(4),
        mapping=mapping,
        bonds=np.array([[0, 1], [0, 2], [1, 2], [2, 3]], np.int32),
        elements=np.full(n, 6, np.int32),
        atom_bonds=np.stack([np.arange(n - 1), np.arange(1, n)], 1).astype(np.int32),
        atom_index=np.arange(n, dtype=np.int32),
    )
    assert stiff_bonds(molecule).tolist() == [True, False, True, False]
    assert stiff_bonds(plain_chain("seed", np.zeros(3, int))).all()


def test_frames_of_each_molecule_are_counted_by_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = frames(), replace(frames(1, 5), molecule=1)
    write_cg(tmp_path / "two.npz", [chain(N), chain(5, name="b")], TABLE, SOURCES, {}, [a, b])
    for name in ("chain", "b"):
        assert " in frames" not in finding(tmp_path / "two.npz", f"{name}: overlaps")
        assert f"of {T} frames" not in finding(tmp_path / "two.npz", f"{name}: overlaps")
    monkeypatch.setattr("mlff_cli.data.trajectories.frame_survey.PAIRS", 200)
    assert f" of {T} frames" in finding(tmp_path / "two.npz", "b: overlaps")


def test_typical_forces_stand_beside_their_values(tmp_path: Path) -> None:
    told = finding(cg(tmp_path / "CG.npz", frames()), "forces")
    pattern = r"mean \|F\| [\d.]+ \(15 to 30\), largest [\d.]+ \(50 to 100; .* RMS .* \(10 to 20\)"
    assert re.match(pattern, told)


def test_a_topology_that_fits_is_told(tmp_path: Path) -> None:
    X, F = aa_frames(4)
    top, path = write_pdb(tmp_path / "top.pdb"), write_npz(tmp_path / "aa.npz", X, F)
    summary = run([path], Options(top=top))
    (told,) = [c for c in summary.data["files"][str(path)] if c["check"] == "topology"]
    assert told["verdict"] == "ok"
    assert (
        "3 residues; fits the frames: number of atoms, elements, lengths of bonds"
        in told["finding"]
    )
    assert "topology" not in verdicts(path)
    other = write_pdb(tmp_path / "other.pdb", rows_of_the_molecule()[:-1])
    assert run([path], Options(top=other)).failure is not None


def test_frames_that_are_not_finite_are_named(tmp_path: Path) -> None:
    block = frames()
    arrays = {"R": block.R.copy(), "F": block.F, "species": np.zeros((T, N), np.int32)}
    arrays["R"][[5, 30], 2] = np.nan
    np.savez(tmp_path / "CG.npz", mask=np.ones((T, N), np.float32), Z=np.ones(N), **arrays)
    summary = run([tmp_path / "CG.npz"])
    assert isinstance(summary.failure, CheckFailedError)
    assert "2 frames hold values that are not finite: rows 5, 30" in finding(
        tmp_path / "CG.npz", "finite"
    )


def test_a_force_map_that_is_not_consistent_fails(tmp_path: Path) -> None:
    molecule = chain(N)
    assert molecule.mapping is not None
    good = replace(molecule, force_map=2 * molecule.mapping)
    bad = replace(molecule, force_map=molecule.mapping)
    cg(tmp_path / "good.npz", frames(), good)
    cg(tmp_path / "bad.npz", frames(), bad)
    assert verdicts(tmp_path / "good.npz")["chain: force map"] == "ok"
    assert verdicts(tmp_path / "bad.npz")["chain: force map"] == "failed"


def test_files_of_every_kind_in_one_call(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cg(tmp_path / "CG.npz", frames())
    R, F = rng.normal(size=(2, 5, 3, 3)).astype("float32")
    np.savez(tmp_path / "aa.npz", R=R, F=F, Z=np.array([8, 1, 1]))
    molecule = {"coord": np.eye(3) * 2, "numbers": np.array([8, 1, 1]), "energy": -1.0}
    write_grouped(tmp_path / "fid0.h5", [molecule], {})
    files = [tmp_path / name for name in ("CG.npz", "aa.npz", "fid0.h5")]
    summary = run(files)
    assert [t.title for t in summary.tables] == [str(f) for f in files]
    assert all(len(t.rows) > 3 for t in summary.tables)


def test_a_trajectorys_bad_frame_is_a_finding(tmp_path: Path) -> None:
    R = np.random.default_rng(0).normal(size=(6, 3, 3))
    R[4, 1] = np.nan
    np.savez(tmp_path / "aa.npz", R=R, F=np.ones_like(R), Z=np.array([8, 1, 1]))
    summary = run([tmp_path / "aa.npz"])
    assert summary.failure is not None
    assert "4" in finding(tmp_path / "aa.npz", "frames")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"\x89HDF\r\n\x1a\n torn", b"text"])
def test_a_file_that_cannot_be_read_is_a_finding(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    cg(tmp_path / "CG.npz", frames())
    summary = run([tmp_path / "x.npz", tmp_path / "CG.npz"])
    assert summary.data["failed"] == 1
    assert summary.failure is not None
    assert "x.npz" in str(summary.failure)


def test_a_file_of_no_kind_that_is_checked_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "prior.yaml").write_text("format: mlff-prior\n")
    assert finding(tmp_path / "prior.yaml", "file").count("neither a coarse-grained set") == 1


def test_nothing_to_check_and_missing_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        run([])
    with pytest.raises(StorageError):
        run([tmp_path / "absent.npz"])
