"""H5MD: what is written is read, by us and by MDAnalysis; what does not fit together is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mlff_cli.core.errors import DataError, StorageError, UsageError
from mlff_cli.data.trajectories.h5md import H5MDTrajectory
from mlff_cli.data.trajectories.h5md_writer import H5MDWriter, create_h5md, write_h5md
from mlff_cli.data.trajectories.opening import Trajectory
from tests.tiny_disk import run_on_tiny_disk

T, N = 6, 4
NUMBERS = np.array([8, 1, 1, 18])
BONDS = np.array([[0, 1], [0, 2]])
PDB = """\
HETATM    1  O   HOH A   1       0.000   0.000   0.000  1.00  0.00           O
HETATM    2  H1  HOH A   1       0.957   0.000   0.000  1.00  0.00           H
HETATM    3  H2  HOH A   1      -0.240   0.927   0.000  1.00  0.00           H
HETATM    4 AR   AR  A   2       4.000   0.000   0.000  1.00  0.00          Ar
END
"""
ALL = ("position", "force", "edges", "potential_energy", "temperature", "replica")


def arrays(dtype: str = "float32") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "step": np.repeat(np.arange(T // 2), 2) * 10,
        "time": np.repeat(np.arange(T // 2), 2) * 0.5,
        "position": rng.normal(size=(T, N, 3)).astype(dtype),
        "force": (100 * rng.normal(size=(T, N, 3))).astype(dtype),
        "edges": np.tile(np.array([[3.0, 0, 0], [0.5, 3, 0], [0.25, 0.5, 3]]), (T, 1, 1)),
        "potential_energy": rng.normal(size=T),
        "temperature": np.tile([300.0, 400.0], T // 2),
        "replica": np.tile([1, 0], T // 2),
    }


def write(path: Path, names: tuple[str, ...] = ALL, **more: Any) -> dict[str, np.ndarray]:
    values = {n: v for n, v in arrays(more.get("dtype", "float32")).items()}
    values = {n: v for n, v in values.items() if n in (*names, "step", "time")}
    pieces = ({n: v[s] for n, v in values.items()} for s in (slice(0, 4), slice(4, T)))
    more.setdefault("attrs", {"topology_pdb": PDB, "constraints": "none", "forcefield": ["a.xml"]})
    write_h5md(path, names, T, NUMBERS, pieces, bonds=BONDS, **more)
    return values


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_round_trip_keeps_every_digit_up_to_the_units(tmp_path: Path, dtype: str) -> None:
    given = write(tmp_path / "a.h5", dtype=dtype)
    with H5MDTrajectory(tmp_path / "a.h5") as file:
        opened: Trajectory = file
        assert (opened.n_frames, opened.n_atoms, opened.has_forces) == (T, N, True)
        rows = np.array([0, 1, 4])
        got = opened.read(rows, forces=True)
    kcal = 1 / 4.184
    assert got.positions is not None
    assert got.forces is not None
    assert got.energy is not None
    assert got.positions.dtype == got.forces.dtype == np.dtype(dtype)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(got.positions, 10 * given["position"][rows], rtol=eps)
    np.testing.assert_allclose(got.forces, given["force"][rows] * kcal / 10, rtol=2 * eps)
    np.testing.assert_allclose(got.energy, given["potential_energy"][rows] * kcal, rtol=1e-15)
    np.testing.assert_allclose(got.box, 10 * given["edges"][rows], rtol=1e-15)
    np.testing.assert_array_equal(got.temperature, given["temperature"][rows])


def test_it_says_what_it_is(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", attrs={"topology_pdb": PDB, "constraints": "hbonds", "list": [1, 2]})
    with H5MDTrajectory(tmp_path / "a.h5") as file:
        assert file.facts["constraints"] == "hbonds"
        assert file.facts["list"] == [1, 2]
        assert file.topology is not None
        assert [a.element.symbol for a in file.topology.atoms] == ["O", "H", "H", "Ar"]
        assert {(a.index, b.index) for a, b in file.topology.bonds} == {(0, 1), (0, 2)}
        np.testing.assert_array_equal(file.numbers, NUMBERS)


def test_mdanalysis_reads_the_same(tmp_path: Path) -> None:
    import MDAnalysis

    given = write(tmp_path / "a.h5md")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what a bare topology does not say
        universe = MDAnalysis.Universe.empty(N, trajectory=False)
        universe.load_new(str(tmp_path / "a.h5md"))
        with H5MDTrajectory(tmp_path / "a.h5md") as file:
            ours = file.read(np.arange(T), forces=True)
        assert ours.positions is not None
        assert ours.forces is not None
        assert universe.trajectory.n_frames == T
        for row, frame in enumerate(universe.trajectory):
            np.testing.assert_allclose(frame.positions, ours.positions[row], rtol=1e-6)
            kj = 4.184 * ours.forces[row]
            np.testing.assert_allclose(frame.forces, kj, rtol=1e-6)
            assert frame.data["temperature"] == given["temperature"][row]
            assert frame.time == given["time"][row]
            edges = frame.triclinic_dimensions
            lengths = np.linalg.norm(10 * given["edges"][row], axis=1)
            np.testing.assert_allclose(np.linalg.norm(edges, axis=1), lengths, rtol=1e-6)


def test_the_order_of_writing_leaves_no_trace(tmp_path: Path) -> None:
    """Frames written twice, backwards and after reopening: the same bytes."""
    given = write(tmp_path / "a.h5")
    attrs = {"topology_pdb": PDB, "constraints": "none", "forcefield": ["a.xml"]}
    create_h5md(tmp_path / "b.h5", ALL, T, NUMBERS, bonds=BONDS, attrs=attrs)
    for row in (3, 5, 4, 3, 2, 1, 0):
        with H5MDWriter(tmp_path / "b.h5") as writer:
            writer.write(row, {n: v[row : row + 1] for n, v in given.items()})
            writer.sync()
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_tables_are_replaced(tmp_path: Path) -> None:
    tables = {"exchange/accepted": np.zeros(3, dtype="int64"), "plain": np.zeros(2)}
    create_h5md(tmp_path / "a.h5", ("position",), T, NUMBERS, tables=tables)
    with H5MDWriter(tmp_path / "a.h5") as writer:
        writer.write_table("exchange/accepted", np.array([1, 2, 3]))
        writer.write_table("plain", np.array([0.5, 1.5]))
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["parameters/exchange/accepted"], [1, 2, 3])
        np.testing.assert_array_equal(file["parameters/plain"], [0.5, 1.5])


def test_a_topology_may_be_large(tmp_path: Path) -> None:
    text = PDB * 20_000
    create_h5md(tmp_path / "a.h5", ("position",), 1, NUMBERS, attrs={"topology_pdb": text})
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.attrs["topology_pdb"] == text


def test_without_a_box_without_forces(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", ("position",))
    with H5MDTrajectory(tmp_path / "a.h5") as file:
        got = file.read(np.array([2]))
        assert got.box is got.temperature is got.energy is got.forces is None
        with pytest.raises(DataError, match="no forces"):
            file.read(np.array([0]), forces=True)
        with pytest.raises(IndexError):
            file.read(np.array([T]))
    with h5py.File(tmp_path / "a.h5") as file:
        assert list(file["particles/all/box"].attrs["boundary"]) == ["none"] * 3


def foreign(path: Path, length: str | None = "Angstrom", force: str | None = None) -> None:
    """As others write it: own group name, chunks, a fixed box of three lengths."""
    given = arrays()
    with h5py.File(path, "w") as file:
        group = file.create_group("particles/trajectory")
        group.create_group("box").attrs["dimension"] = 3
        group["box/edges"] = np.array([30.0, 40.0, 50.0])
        for name, unit in (("position", length), ("force", force)):
            data = group.create_dataset(
                f"{name}/value", data=given[name], chunks=(2, N, 3), compression="gzip"
            )
            group[f"{name}/step"] = given["step"]
            if unit:
                data.attrs["unit"] = unit
        if length:
            group["box/edges"].attrs["unit"] = length


def test_foreign_files_in_other_units(tmp_path: Path) -> None:
    foreign(tmp_path / "a.h5md", "Angstrom", "kcal mol-1 Angstrom-1")
    with H5MDTrajectory(tmp_path / "a.h5md") as file:
        got = file.read(np.array([0, 5]), forces=True)
        np.testing.assert_array_equal(got.positions, arrays()["position"][[0, 5]])
        np.testing.assert_array_equal(got.forces, arrays()["force"][[0, 5]])
        assert got.box is not None
        np.testing.assert_array_equal(got.box[1], np.diag([30.0, 40.0, 50.0]))


@pytest.mark.parametrize(
    ("force", "told"),
    [
        (None, r"'force' needs a unit, found none"),
        ("furlong", r"unit of 'force': unknown unit of force 'furlong'"),
    ],
)
def test_forces_in_unknown_units_are_refused(tmp_path: Path, force: str | None, told: str) -> None:
    foreign(tmp_path / "a.h5md", "Angstrom", force)
    with pytest.raises(DataError, match=told):
        H5MDTrajectory(tmp_path / "a.h5md")


def test_forces_in_atomic_units(tmp_path: Path) -> None:
    """1 hartree/bohr is 627.5095 kcal/mol over 0.529177 angstrom."""
    foreign(tmp_path / "a.h5md", "nm", "hartree/bohr")
    with H5MDTrajectory(tmp_path / "a.h5md") as file:
        found = file.read(np.array([1]), forces=True).forces
    np.testing.assert_allclose(found, arrays()["force"][[1]] * 627.5095 / 0.529177, rtol=1e-5)


def test_bonds_that_nobody_names_are_made_by_distance_and_told(tmp_path: Path) -> None:
    """A residue of other names, with the file's bonds and without."""
    pdb = PDB.replace("HOH", "XYZ")
    write(tmp_path / "a.h5", attrs={"topology_pdb": pdb})
    with H5MDTrajectory(tmp_path / "a.h5") as file:
        assert file.topology is not None
        assert {(a.index, b.index) for a, b in file.topology.bonds} == {(0, 1), (0, 2)}
        assert file.notes == []
    with h5py.File(tmp_path / "a.h5", "r+") as raw:
        del raw["connectivity/bonds"]
    with H5MDTrajectory(tmp_path / "a.h5") as file:
        assert file.topology is not None
        assert {(a.index, b.index) for a, b in file.topology.bonds} == {(0, 1), (0, 2)}
        assert any("2 bonds made by distance in residues XYZ" in note for note in file.notes)


def test_rows_ascend_as_in_every_reader(tmp_path: Path) -> None:
    write(tmp_path / "a.h5")
    with H5MDTrajectory(tmp_path / "a.h5") as file:
        for rows in ([1, 0], [1, 1], [-1], [T]):
            with pytest.raises(IndexError, match="ascend"):
                file.read(np.array(rows))


def test_damage_that_shows_when_frames_are_read_is_named(tmp_path: Path) -> None:
    foreign(tmp_path / "a.h5md", "Angstrom", "kcal/mol/A")
    with h5py.File(tmp_path / "a.h5md") as file:
        chunk = file["particles/trajectory/force/value"].id.get_chunk_info(1)
    with (tmp_path / "a.h5md").open("r+b") as stream:
        stream.seek(chunk.byte_offset)
        stream.write(b"\xff" * chunk.size)
    with H5MDTrajectory(tmp_path / "a.h5md") as trajectory:
        trajectory.read(np.array([0, 1]), forces=True)
        with pytest.raises(DataError, match="damaged or cut short") as error:
            trajectory.read(np.array([2, 3]), forces=True)
    assert "frames 2 to 3" in str(error.value)


@pytest.mark.parametrize(
    ("time", "attrs", "ps"),
    [
        (np.arange(T) * 500.0, {"unit": "fs"}, [0.0, 0.5]),
        (np.arange(T) * 3.0 + 1, {"unit": b"ns"}, [1000.0, 4000.0]),
        (0.2, {"unit": "ps", "offset": 3.0}, [3.0, 3.2]),  # H5MD's way of even steps
        (0.2, {"unit": "ps", "offset": "three"}, None),
        (np.arange(T), {}, None),
        (np.arange(T + 1), {"unit": "ps"}, None),
    ],
)
def test_times_are_picoseconds_or_nothing(
    tmp_path: Path, time: Any, attrs: dict[str, Any], ps: list[float] | None
) -> None:
    foreign(tmp_path / "a.h5", force="kJ mol-1 nm-1")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        data = file.create_dataset("particles/trajectory/position/time", data=time)
        data.attrs.update(attrs)
    with H5MDTrajectory(tmp_path / "a.h5") as trajectory:
        found = trajectory.read(np.arange(2)).time
    assert (found is None) == (ps is None)
    if ps is not None:
        np.testing.assert_allclose(found, ps)


def test_a_frame_that_is_not_finite_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["particles/all/force/value"][3, 2, 1] = np.nan
    with H5MDTrajectory(tmp_path / "a.h5") as file:
        file.read(np.array([0, 1, 2, 4, 5]), forces=True)
        with pytest.raises(DataError, match=r"forces must be finite") as error:
            file.read(np.arange(T), forces=True)
    assert "frame 3, atom 2" in str(error.value)


def test_frames_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    bad = arrays()
    bad["position"][4, 1] = np.inf
    with pytest.raises(DataError, match="finite") as error:
        write_h5md(tmp_path / "a.h5", ALL, T, NUMBERS, [bad])
    assert "frame 4" in str(error.value)
    assert not list(tmp_path.iterdir())


def test_frames_must_be_as_many_as_promised(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="6 frames were promised, found 4"):
        write_h5md(tmp_path / "a.h5", ALL, T, NUMBERS, [{n: v[:4] for n, v in arrays().items()}])
    with pytest.raises(DataError, match="must have shape"):
        write_h5md(tmp_path / "a.h5", ALL, T - 1, NUMBERS, [arrays()])
    with pytest.raises(DataError, match="0 frames"):
        write_h5md(tmp_path / "a.h5", ALL, 0, NUMBERS, [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.95])
def test_a_cut_file_is_refused(tmp_path: Path, share: float) -> None:
    write(tmp_path / "a.h5")
    whole = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "b.h5").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=r"damaged|cut|empty|HDF5"):
        H5MDTrajectory(tmp_path / "b.h5")


def test_what_is_no_trajectory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="does not exist"):
        H5MDTrajectory(tmp_path / "none.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["028/coord"] = np.zeros((1, 28, 3))
    with pytest.raises(DataError, match="below /particles, this file has 028"):
        H5MDTrajectory(tmp_path / "a.h5")
    write(tmp_path / "b.h5", attrs={"topology_pdb": PDB.replace("HETATM    4", "REMARK    4")})
    with pytest.raises(DataError, match="3 atoms in 'topology_pdb' and 4"):
        H5MDTrajectory(tmp_path / "b.h5")
    write(tmp_path / "c.h5")
    with pytest.raises(UsageError, match="exists"):
        write(tmp_path / "c.h5")
    with h5py.File(tmp_path / "c.h5", "r+") as file:
        del file["particles/all/force/step"]
        file["particles/all/force/step"] = np.arange(T)
    with pytest.raises(DataError, match="other steps"):
        H5MDTrajectory(tmp_path / "c.h5")


@pytest.mark.parametrize("bonds", [[[0, N]], [[-1, 0]], [[0, 1, 2]], [[0.5, 1.0]]])
def test_bonds_are_pairs_of_its_atoms(tmp_path: Path, bonds: list[list[float]]) -> None:
    write(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file["connectivity/bonds"]
        file["connectivity/bonds"] = np.array(bonds)
    with pytest.raises(DataError, match="must be pairs of atoms 0 to 3"):
        H5MDTrajectory(tmp_path / "a.h5")


def test_text_that_is_no_text_can_be_written_again(tmp_path: Path) -> None:
    """A flipped byte in a name or a value: what is told of the file must be printable."""
    write(tmp_path / "a.h5", attrs={"topology_pdb": PDB, "integrator": "Langevin"})
    raw = (tmp_path / "a.h5").read_bytes()
    assert raw.count(b"integrator\0") == 1
    raw = raw.replace(b"integrator\0", b"integr\xe9tor\0").replace(b"Langevin", b"Langev\xffn")
    (tmp_path / "a.h5").write_bytes(raw)
    with H5MDTrajectory(tmp_path / "a.h5") as file:
        assert file.facts["integr\ufffdtor"] == "Langev\ufffdn"


def test_a_small_disk_is_refused_before_the_work(tmp_path: Path) -> None:
    code = """
import sys, numpy as np
from pathlib import Path
from mlff_cli.core.errors import StorageError
from mlff_cli.data.trajectories.h5md_writer import write_h5md

def frames():
    raise SystemExit("too late")
    yield

try:
    write_h5md(Path(sys.argv[1]) / "a.h5", ["position"], 10_000, np.ones(20, int), frames())
except StorageError as error:
    assert "No space left" in str(error), error
    assert not list(Path(sys.argv[1]).iterdir())
    raise SystemExit(7)
"""
    done = run_on_tiny_disk(tmp_path, code, size="1m")
    assert done.returncode == 7, done.stderr
