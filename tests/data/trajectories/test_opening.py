"""Trajectories: every format gives the same frames, in any rows, and damage is named."""

from __future__ import annotations

import os
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlff_cli.core.artifacts import sha256
from mlff_cli.core.errors import DataError, StorageError
from mlff_cli.data.trajectories.opening import (
    chunks,
    open_trajectory,
    source_digest,
    split_selection,
    trajectory_format,
)
from tests.data.trajectory_cases import (
    EDGE,
    X0,
    N,
    Z,
    frames,
    pdb_text,
    rows_of_the_molecule,
    write_dcd,
    write_h5md_file,
    write_mdcath,
    write_npz,
    write_pdb,
    write_trr,
    write_xtc,
)

X, F = frames(24)
WRITERS: dict[str, Callable[[Path], Path]] = {
    "npz": lambda folder: write_npz(folder / "a.npz", X, F),
    "trr": lambda folder: write_trr(folder / "a.trr", X, F),
    "dcd": lambda folder: write_dcd(folder / "a.dcd", X),
    "xtc": lambda folder: write_xtc(folder / "a.xtc", X),
    "mdcath": lambda folder: write_mdcath(folder / "a.h5", X, F, {"320": 2, "450": 1}),
    "h5md": lambda folder: write_h5md_file(folder / "a.h5md", X, F),
}
ROUNDED = {"xtc": 0.0051, "trr": 1e-5, "h5md": 1e-12}  # 0.01 angstrom; nm; the others are exact


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("trajectories")
    return {name: write(folder) for name, write in WRITERS.items()}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_frames_that_were_written(files: dict[str, Path], name: str) -> None:
    with open_trajectory(files[name]) as trajectory:
        assert trajectory.format == name
        assert (trajectory.n_frames, trajectory.n_atoms) == (24, N)
        assert trajectory.has_forces == (name not in ("dcd", "xtc"))
        rows = np.arange(24)
        found = trajectory.read(rows, forces=trajectory.has_forces)
        assert found.positions is not None
        np.testing.assert_allclose(found.positions, X, atol=ROUNDED.get(name, 0.0))
        if trajectory.has_forces:
            assert found.forces is not None
            np.testing.assert_allclose(found.forces, F, rtol=1e-6, atol=1e-6)
        else:
            assert found.forces is None
        if name != "npz":
            assert found.box is not None
            np.testing.assert_allclose(found.box, np.tile(np.eye(3) * EDGE, (24, 1, 1)), rtol=1e-6)
        assert trajectory.precision == (0.01 if name == "xtc" else 0.0)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sets(st.integers(0, 23), min_size=1), st.sampled_from(sorted(WRITERS)))
def test_rows_are_the_rows_of_the_whole(
    files: dict[str, Path], chosen: set[int], name: str
) -> None:
    rows = np.array(sorted(chosen))
    with open_trajectory(files[name]) as trajectory:
        forces = trajectory.has_forces
        whole = trajectory.read(np.arange(24), forces=forces)
        for wanted in (rows, rows):  # again, from behind
            found = trajectory.read(wanted, forces=forces)
            for field in ("positions", "forces", "box", "temperature"):
                values, all_values = getattr(found, field), getattr(whole, field)
                assert (values is None) == (all_values is None)
                if values is not None:
                    np.testing.assert_array_equal(values, all_values[rows])
        np.testing.assert_array_equal(found.rows, rows)
        if forces:
            alone = trajectory.read(rows, positions=False, forces=True)
            assert alone.positions is None
            np.testing.assert_array_equal(alone.forces, found.forces)


def test_nothing_is_written_beside_the_files(files: dict[str, Path]) -> None:
    assert sorted(os.listdir(files["npz"].parent)) == sorted(p.name for p in files.values())


def test_chunks_cover_the_rows_once() -> None:
    rows = np.arange(0, 100_000, 3)
    pieces = list(chunks(rows, 1200))
    assert len(pieces) > 1
    np.testing.assert_array_equal(np.concatenate(pieces), rows)
    assert max(len(p) for p in pieces) * 1200 * 3 * 8 * 2 <= 16 << 20


@pytest.mark.parametrize("name", [n for n in WRITERS if n != "h5md"])
def test_rows_must_ascend_and_be_there(files: dict[str, Path], name: str) -> None:
    with open_trajectory(files[name]) as trajectory:
        for rows in ([3, 2], [2, 2], [-1], [24]):
            with pytest.raises(IndexError, match="rows"):
                trajectory.read(np.array(rows))
        assert trajectory.read(np.array([], dtype=int)).positions is not None


@pytest.mark.parametrize("name", ["dcd", "xtc"])
def test_no_forces_in_the_file(files: dict[str, Path], name: str) -> None:
    with (
        open_trajectory(files[name]) as trajectory,
        pytest.raises(DataError, match="has no forces") as caught,
    ):
        trajectory.read(np.array([0]), forces=True)
    assert caught.value.remedy


@pytest.mark.parametrize("name", WRITERS)
def test_a_cut_file_is_refused_when_it_is_opened(
    files: dict[str, Path], name: str, tmp_path: Path
) -> None:
    raw = files[name].read_bytes()
    cut = tmp_path / files[name].name
    for lost in {1, 3, 40, 92, 120, 300, 700, len(raw) // 2 + 5, len(raw) - 30, len(raw)}:
        cut.write_bytes(raw[: len(raw) - lost])
        with pytest.raises(DataError) as caught:
            open_trajectory(cut).read(np.arange(24))
        assert cut.name in str(caught.value), lost
        assert caught.value.remedy, lost
    assert sorted(os.listdir(tmp_path)) == [cut.name]


@pytest.mark.parametrize("name", ["trr", "xtc", "dcd"])
def test_nonsense_inside_is_refused(files: dict[str, Path], name: str, tmp_path: Path) -> None:
    """In the middle of the file, where lengths and marks of frames are overwritten."""
    raw = bytearray(files[name].read_bytes())
    size = len(raw) // 24  # of a frame, about
    raw[11 * size : 12 * size + 200] = b"\xff" * (size + 200)
    damaged = tmp_path / files[name].name
    damaged.write_bytes(raw)
    with pytest.raises(DataError) as caught:
        open_trajectory(damaged).read(np.arange(24))
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["npz", "trr", "dcd", "mdcath"])
def test_a_frame_that_is_not_finite_is_named(name: str, tmp_path: Path) -> None:
    x, f = X.copy(), F.copy()
    x[17, 5, 1] = np.nan
    f[19, 2, 0] = np.inf
    write = {
        "npz": lambda: write_npz(tmp_path / "a.npz", x, f),
        "trr": lambda: write_trr(tmp_path / "a.trr", x, f),
        "dcd": lambda: write_dcd(tmp_path / "a.dcd", x),
        "mdcath": lambda: write_mdcath(tmp_path / "a.h5", x, f, {"320": 1}),
    }[name]
    with open_trajectory(write()) as trajectory:
        trajectory.read(np.arange(17))
        with pytest.raises(DataError, match="frame 17, atom 5"):
            trajectory.read(np.arange(10, 20))
        if name != "dcd":
            with pytest.raises(DataError, match="frame 19, atom 2"):
                trajectory.read(np.arange(18, 22), forces=True)


def test_a_trajectory_needs_frames(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least one frame"):
        open_trajectory(write_npz(tmp_path / "a.npz", X[:0], F[:0]))
    with pytest.raises(DataError, match="at least one frame"):
        open_trajectory(write_mdcath(tmp_path / "a.h5", X[:0], F[:0], {"320": 1}))
    for name in ("empty.trr", "empty.xtc", "empty.dcd", "empty.npz", "empty.h5"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(DataError, match="empty"):
            open_trajectory(tmp_path / name)


def test_what_is_no_trajectory(tmp_path: Path) -> None:
    (tmp_path / "a.trr").write_text("hello")
    with pytest.raises(DataError, match="not a trajectory"):
        open_trajectory(tmp_path / "a.trr")
    with pytest.raises(DataError, match="folder"):
        open_trajectory(tmp_path)
    os.mkfifo(tmp_path / "pipe.trr")
    with pytest.raises(DataError, match="folder or device"):
        open_trajectory(tmp_path / "pipe.trr")
    with pytest.raises(StorageError, match="does not exist"):
        open_trajectory(tmp_path / "none.trr")
    np.savez(tmp_path / "cg.npz", R=X, F=F, species=np.zeros((24, N)), mask=np.ones((24, N)))
    assert trajectory_format(tmp_path / "cg.npz") is None
    with pytest.raises(DataError, match="coarse-grained"):
        open_trajectory(tmp_path / "cg.npz")
    with h5py.File(tmp_path / "grouped.h5", "w") as file:
        file.create_dataset("003/coord", data=np.zeros((1, 3, 3)))
    assert trajectory_format(tmp_path / "grouped.h5") is None
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("model/data.pkl", b"")
    assert trajectory_format(tmp_path / "model.pt") is None


HEADERS = {  # place in a frame's header, and a value there that the decoders would die of
    "trr": [(4, 99), (16, 7), (32, -1), (48, 2**30), (52, 36), (56, 1), (64, 0), (64, 10**8)],
    "xtc": [(4, 0), (4, 10**8), (52, 21), (56, -1), (60, 2**31 - 1), (84, 0), (84, 73), (88, -4)],
}


@pytest.mark.parametrize("row", [0, 11])
@pytest.mark.parametrize(
    ("name", "place", "value"), [(n, *damage) for n, listed in HEADERS.items() for damage in listed]
)
def test_a_damaged_header_ends_in_an_error_and_not_the_process(
    files: dict[str, Path], name: str, place: int, value: int, row: int, tmp_path: Path
) -> None:
    raw = bytearray(files[name].read_bytes())
    magic = raw[:4]
    start = [i for i in range(len(raw)) if raw[i : i + 4] == magic][row]
    raw[start + place : start + place + 4] = value.to_bytes(4, "big", signed=True)
    damaged = tmp_path / files[name].name
    damaged.write_bytes(raw)
    with pytest.raises(DataError, match="damaged|cut short") as caught:
        open_trajectory(damaged)
    assert f"{damaged}, frame" in str(caught.value)


@pytest.mark.parametrize("change", [{92: -200}, {8 + 4 * 8: 23}])
def test_a_dcd_header_that_makes_no_sense(
    files: dict[str, Path], change: dict[int, int], tmp_path: Path
) -> None:
    """Titles of a negative length; more fixed atoms than atoms."""
    raw = bytearray(files["dcd"].read_bytes())
    for place, value in change.items():
        raw[place : place + 4] = value.to_bytes(4, "little", signed=True)
    (tmp_path / "a.dcd").write_bytes(raw)
    with pytest.raises(DataError, match="damaged"):
        open_trajectory(tmp_path / "a.dcd")


def test_mdcath_whose_topology_is_another_molecules(tmp_path: Path) -> None:
    path = write_mdcath(tmp_path / "a.h5", X, F, {"320": 1})
    with h5py.File(path, "r+") as file:
        del file["1abcA00/pdbProteinAtoms"]
        file["1abcA00/pdbProteinAtoms"] = pdb_text(rows_of_the_molecule()[:-1]).encode()
    with pytest.raises(DataError, match="found 21 and 22"):
        open_trajectory(path)


def test_trr_frames_without_forces(tmp_path: Path) -> None:
    """Forces in every third frame: only those are rows, and it is said."""
    path = write_trr(tmp_path / "a.trr", X, F, every=3)
    with open_trajectory(path) as trajectory:
        assert trajectory.n_frames == 8
        assert any("16 of 24" in note for note in trajectory.notes)
        found = trajectory.read(np.arange(8), forces=True)
        np.testing.assert_allclose(found.positions, X[::3], atol=1e-5)
        np.testing.assert_allclose(found.forces, F[::3], rtol=1e-6)
    with open_trajectory(write_trr(tmp_path / "b.trr", X, None)) as trajectory:
        assert (trajectory.n_frames, trajectory.has_forces) == (24, False)
        with pytest.raises(DataError, match="nstfout|has no forces"):
            trajectory.read(np.arange(3), forces=True)


def test_mdcath_by_temperature_and_replica(tmp_path: Path) -> None:
    path = write_mdcath(tmp_path / "a.h5", X, F, {"320": 2, "450": 1})
    parts = {"": range(24), "320": range(16), "320/1": range(8, 16), "450": range(16, 24)}
    for selection, rows in parts.items():
        with open_trajectory(f"{path}@{selection}" if selection else path) as trajectory:
            found = trajectory.read(np.arange(len(rows)), forces=True)
            assert trajectory.n_frames == len(rows)
            assert trajectory.path == path
            assert trajectory.topology is not None
            np.testing.assert_array_equal(found.positions, X[rows])
            np.testing.assert_array_equal(found.forces, F[rows])
            wanted = np.where(np.array(rows) < 16, 320.0, 450.0)
            np.testing.assert_array_equal(found.temperature, wanted)
    with pytest.raises(DataError, match="names no frames") as caught:
        open_trajectory(f"{path}@300")
    assert "320/1" in str(caught.value)
    with pytest.raises(StorageError) as missing:
        open_trajectory(f"{path}:320")
    assert f"{path}@320" in str(missing.value)
    odd = tmp_path / "b@320.npz"
    write_npz(odd, X, F)
    assert split_selection(odd) == (odd, None)
    with pytest.raises(DataError, match="mdCATH"):
        open_trajectory(f"{odd}@1")


def test_digests_tell_selections_apart(tmp_path: Path) -> None:
    path = write_mdcath(tmp_path / "a.h5", X, F, {"320": 2, "450": 1})
    assert source_digest(path) == sha256(path)
    assert len({source_digest(f"{path}@{s}") for s in ("320", "320/1", "450")}) == 3


def test_mdcath_that_breaks_its_layout(tmp_path: Path) -> None:
    path = write_mdcath(tmp_path / "a.h5", X, F, {"320": 1})
    with h5py.File(path, "r+") as file:
        file["1abcA00/320/0/forces"].attrs["unit"] = "eV/Angstrom"
    with open_trajectory(path) as trajectory:
        scaled = trajectory.read(np.array([3]), forces=True).forces
        np.testing.assert_allclose(scaled, F[3:4] * 23.060548, rtol=1e-6)
    with h5py.File(path, "r+") as file:
        file["1abcA00/320/0/forces"].attrs["unit"] = "stone"
    with pytest.raises(DataError, match="stone"):
        open_trajectory(path)
    with h5py.File(path, "r+") as file:
        del file["1abcA00/320/0/forces"].attrs["unit"]
    with open_trajectory(path) as trajectory:
        assert any("'forces' names no unit" in note for note in trajectory.notes)
    with h5py.File(path, "r+") as file:
        del file["1abcA00/320/0/forces"]
        file["1abcA00/320/0/forces"] = F[:3]
    with pytest.raises(DataError, match="same frames"):
        open_trajectory(path)
    with h5py.File(path, "r+") as file:
        del file["1abcA00/320/0/forces"]
    with open_trajectory(path) as trajectory, pytest.raises(DataError, match="has no forces"):
        trajectory.read(np.array([0]), forces=True)


class TestTopology:
    def test_it_is_the_trajectorys(self, files: dict[str, Path], tmp_path: Path) -> None:
        top = write_pdb(tmp_path / "top.pdb")
        for name, path in files.items():
            with open_trajectory(path, top) as trajectory:
                assert trajectory.topology is not None
                assert trajectory.topology.n_residues == 3
                checked = trajectory.facts["checked"]
                assert "number of atoms" in checked
                assert ("elements" in checked) == (name in ("npz", "mdcath", "h5md"))
                assert any("bonds" in c for c in checked)

    def test_another_number_of_atoms(self, files: dict[str, Path], tmp_path: Path) -> None:
        rows = rows_of_the_molecule()
        water = [
            ["HOH", "4", name, name[0], "9", str(i), "9"] for i, name in enumerate(("O", "H1"))
        ]
        top = write_pdb(tmp_path / "top.pdb", rows + water)
        for path in files.values():
            with pytest.raises(DataError, match="24 in .*top.pdb and 22") as caught:
                open_trajectory(path, top)
            assert "part without water has 22" in str(caught.value)

    def test_another_order_of_atoms(self, files: dict[str, Path], tmp_path: Path) -> None:
        """Elements tell where the file has them, lengths of bonds elsewhere."""
        rows = rows_of_the_molecule()
        top = write_pdb(tmp_path / "top.pdb", rows[:6] + rows[6:16][::-1] + rows[16:])
        for name, path in files.items():
            match = "same elements" if name in ("npz", "mdcath", "h5md") else "do not fit"
            with pytest.raises(DataError, match=match):
                open_trajectory(path, top)

    def test_positions_in_other_units(self, tmp_path: Path) -> None:
        path = write_npz(tmp_path / "nm.npz", X / 10, F)
        with open_trajectory(path) as trajectory:
            assert any("check the unit" in note for note in trajectory.notes)
        with pytest.raises(DataError, match="unit of the positions"):
            open_trajectory(path, write_pdb(tmp_path / "top.pdb"))


def test_implausible_forces_are_a_note(tmp_path: Path) -> None:
    for factor, expected in ((1.0, False), (41.84, True), (1 / 23.06, True), (0.0, True)):
        with open_trajectory(write_npz(tmp_path / "a.npz", X, F * factor)) as trajectory:
            assert any("RMS" in note for note in trajectory.notes) == expected


def test_the_molecule_is_a_molecule() -> None:
    """The cases' own geometry: nearest atoms of every atom are bonded ones."""
    distance = np.linalg.norm(X0[:, None] - X0[None], axis=-1) + np.eye(N) * 9
    assert ((distance.min(axis=1) > 0.9) & (distance.min(axis=1) < 1.6)).all()
    assert (Z == 1).sum() == 12


def test_few_atoms_are_not_rounded_in_xtc(tmp_path: Path) -> None:
    """GROMACS stores up to nine atoms as floats; the end of the file is found there too."""
    path = write_xtc(tmp_path / "a.xtc", X[:, :5])
    with open_trajectory(path) as trajectory:
        assert trajectory.precision == 0.0
        found = trajectory.read(np.arange(24)).positions
        np.testing.assert_allclose(found, X[:, :5], rtol=1e-6)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match="damaged|cut short"):
        open_trajectory(path)


def test_trr_of_double_precision(tmp_path: Path) -> None:
    """Twice the bytes, in header and frames: written here by the format's definition."""
    box = np.eye(3) * EDGE / 10
    with (tmp_path / "a.trr").open("wb") as out:
        for i, x in enumerate(X):
            sizes = [0, 0, 72, 0, 0, 0, 0, 24 * N, 24 * N, 24 * N, N, i, 0]
            out.write(struct.pack(">iii12s13idd", 1993, 13, 12, b"GMX_trn_file", *sizes, i, 0.0))
            for values in (box, x / 10, np.zeros_like(x), F[i] * 41.84):
                out.write(np.asarray(values, ">f8").tobytes())
    with open_trajectory(tmp_path / "a.trr") as trajectory:
        found = trajectory.read(np.arange(24), forces=True)
        np.testing.assert_allclose(found.positions, X, atol=1e-5)
        np.testing.assert_allclose(found.forces, F, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(found.time, np.arange(24.0))


def written(name: str, folder: Path, n: int) -> Path:
    """A file of n times the frames."""
    folder.mkdir()
    x, f = np.tile(X, (n, 1, 1)), np.tile(F, (n, 1, 1))
    if name == "compressed":
        np.savez_compressed(folder / "a.npz", R=x, F=f, Z=Z)
        return folder / "a.npz"
    if name == "mdcath":
        return write_mdcath(folder / "a.h5", x, f, {"320": 1})
    if name in ("npz", "trr", "h5md"):
        write = {"npz": write_npz, "trr": write_trr, "h5md": write_h5md_file}[name]
        return write(folder / f"a.{name}", x, f)
    return {"dcd": write_dcd, "xtc": write_xtc}[name](folder / f"a.{name}", x)


@pytest.mark.parametrize("name", [*WRITERS, "compressed"])
def test_memory_does_not_grow_with_the_frames(name: str, tmp_path: Path) -> None:
    """Peak memory of a pass over four times the frames, in pieces of 50, stays what it was."""

    def peak(n: int) -> int:
        path = written(name, tmp_path / str(n), n)
        tracemalloc.start()
        with open_trajectory(path) as trajectory:
            for start in range(0, trajectory.n_frames, 50):
                rows = np.arange(start, min(start + 50, trajectory.n_frames))
                trajectory.read(rows, forces=trajectory.has_forces)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1)  # imports
    n = 400 if name == "compressed" else 25  # enough to fill the buffer that copies megabytes
    few, many = peak(n), peak(4 * n)
    assert many < few + 100_000, (few, many)  # the frames are at least 475 kB more
