"""Grouped HDF5: read lazily, in any order of rows, and nonsense is refused by name."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlff_cli.core import units
from mlff_cli.core.errors import DataError, StorageError
from mlff_cli.core.fields import FIELDS
from mlff_cli.data.grouped_hdf5 import UNIT_ATTRIBUTES, GroupedHDF5
from tests.synthetic import write_dataset

FAST = settings(max_examples=15, deadline=None)
GIGABYTE = 1 << 30


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty molecules of four atoms."""
    path = tmp_path_factory.mktemp("shared") / "a.h5"
    return write_dataset(path, 50, sizes=(4,), labels=("energy",), charged=True)


@FAST
@given(rows=st.lists(st.integers(-50, 49)))
def test_rows_may_come_in_any_order_and_repeated(shared: Path, rows: list[int]) -> None:
    with GroupedHDF5(shared) as file:
        group = file.groups[0]
        for name in ("coord", "numbers", "energy", "molecule", "forces", "mult"):
            everything = group.read(name)
            picked = group.read(name, np.array(rows))
            expected = everything[np.array(rows, dtype=int)]
            np.testing.assert_array_equal(picked, expected)
            assert picked.dtype == everything.dtype
            assert picked.shape == expected.shape


@FAST
@given(st.slices(50))
def test_rows_may_be_any_slice(shared: Path, rows: slice) -> None:
    with GroupedHDF5(shared) as file:
        for name in ("coord", "energy", "forces"):
            everything = file.groups[0].read(name)
            np.testing.assert_array_equal(file.groups[0].read(name, rows), everything[rows])


def test_rows_may_be_a_mask_and_must_exist(shared: Path) -> None:
    with GroupedHDF5(shared) as file:
        group = file.groups[0]
        energy = group.read("energy")
        mask = energy > np.median(energy)
        np.testing.assert_array_equal(group.read("energy", mask), energy[mask])
        for bad in (50, -51):
            with pytest.raises(IndexError, match=f"group 004: no row {bad}, there are 50"):
                group.read("energy", np.array([0, bad]))


@FAST
@given(chunk=st.integers(1, 60))
def test_chunks_join_to_the_whole(shared: Path, chunk: int) -> None:
    with GroupedHDF5(shared) as file:
        pieces = list(file.groups[0].iter_chunks(("coord", "energy"), chunk))
        for name in ("coord", "energy"):
            joined = np.concatenate([values[name] for _, values in pieces])
            np.testing.assert_array_equal(joined, file.groups[0].read(name))
        assert max(len(values["energy"]) for _, values in pieces) == min(chunk, 50)
        assert [rows.start for rows, _ in pieces] == list(range(0, 50, chunk))


def test_a_file_larger_than_memory_opens_and_reads_in_little(tmp_path: Path) -> None:
    path, n = tmp_path / "big.h5", 30_000_000
    with h5py.File(path, "w") as file:  # chunks nobody wrote take no disk
        group = file.create_group("020")
        for name, shape, dtype in (
            ("coord", (n, 20, 3), "f4"),
            ("numbers", (n, 20), "i4"),
            ("energy", (n,), "f8"),
        ):
            group.create_dataset(
                name, shape, dtype, chunks=(1000, *shape[1:]), fillvalue=1 if dtype == "i4" else 0
            )
    code = (
        "import resource, sys\n"
        "import numpy as np\n"
        "from mlff_cli.data.grouped_hdf5 import GroupedHDF5\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "before = peak()\n"
        "with GroupedHDF5(sys.argv[1]) as file:\n"
        "    group = file.groups[0]\n"
        "    rows = np.random.default_rng(0).integers(0, group.n_molecules, 500)\n"
        "    assert group.read('coord', rows).shape == (500, 20, 3)\n"
        "    rows, values = next(group.iter_chunks(('numbers', 'charge'), 1000))\n"
        "    assert (values['numbers'] == 1).all() and not values['charge'].any()\n"
        "    nbytes = sum(group._group[f].nbytes for f in group.fields)\n"
        "print(nbytes, peak() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True
    )
    nbytes, grown = map(float, done.stdout.split())
    assert nbytes > 9 * GIGABYTE
    assert path.stat().st_size < 1_000_000
    assert grown < 60  # MB


def raw(path: Path, groups: dict[str, dict[str, Any]], **attrs: Any) -> Path:
    """A file by another hand: any groups, arrays and root attributes."""
    with h5py.File(path, "w") as file:
        file.attrs.update(attrs)
        for name, arrays in groups.items():
            group = file.create_group(name)
            for key, values in arrays.items():
                group[key] = values
    return path


def water(**change: Any) -> dict[str, Any]:
    """Two water molecules; a None drops the array."""
    coord = np.arange(18, dtype="float32").reshape(2, 3, 3)
    arrays = {"coord": coord, "numbers": np.array([[8, 1, 1]] * 2), "energy": np.array([1.0, 2.0])}
    return {k: v for k, v in (arrays | change).items() if v is not None}


@pytest.mark.parametrize("name", ["3", "03", "003", "0003"])
def test_group_names_may_have_zeros_before_the_number(tmp_path: Path, name: str) -> None:
    with GroupedHDF5(raw(tmp_path / "a.h5", {name: water()})) as file:
        assert [(g.n_atoms, g.name, g.n_molecules) for g in file.groups] == [(3, name, 2)]


def test_groups_come_by_size_and_empty_ones_are_left_out(tmp_path: Path) -> None:
    one = {"coord": np.zeros((1, 1, 3)), "numbers": [[1]]}
    ten = {"coord": np.zeros((1, 10, 3)), "numbers": np.ones((1, 10), int)}
    none = {"coord": np.zeros((0, 2, 3)), "numbers": np.ones((0, 2), int)}
    with GroupedHDF5(raw(tmp_path / "a.h5", {"10": ten, "2": none, "3": water(), "1": one})) as f:
        assert [g.n_atoms for g in f.groups] == [1, 3, 10]


def test_a_trailing_axis_of_one_and_strange_arrays_are_read_over(tmp_path: Path) -> None:
    arrays = water(energy=np.array([[1.0], [2.0]]), _id=np.arange(5), mult=np.full((2, 1), 3))
    with GroupedHDF5(raw(tmp_path / "a.h5", {"003": arrays})) as file:
        assert file.groups[0].fields == {"coord", "numbers", "energy", "mult"}
        np.testing.assert_array_equal(file.groups[0].read("energy"), [1.0, 2.0])
        np.testing.assert_array_equal(file.groups[0].read("mult"), [3.0, 3.0])


@pytest.mark.parametrize(
    ("attribute", "unit", "field", "factor"),
    [
        ("units_coord", "bohr", "coord", 0.529177210903),
        ("units_coord", "nm", "coord", 10.0),
        ("units_energy", "hartree", "energy", 27.211386245988),
        ("units_energy", "kcal/mol", "energy", 0.0433641042418),
        ("units_energy", "kJ/mol", "energy", 0.0433641042418 / 4.184),
        ("units_forces", "hartree/bohr", "forces", 27.211386245988 / 0.529177210903),
        ("units_forces", "kcal/mol/angstrom", "forces", 0.0433641042418),
        ("units_dipole", "debye", "dipole", units.DEBYE),
        ("units_dipole", "e*bohr", "dipole", 0.529177210903),
        ("units_quadrupole", "e*bohr^2", "quadrupole", 0.529177210903**2),
        ("units_quadrupole", "debye*angstrom", "quadrupole", units.DEBYE),
    ],
)
@pytest.mark.parametrize("kind", [str, np.bytes_])
def test_other_units_become_ours(
    tmp_path: Path, attribute: str, unit: str, field: str, factor: float, kind: type
) -> None:
    values = np.random.default_rng(0).normal(size=(2, *FIELDS[field].shape(3)))
    attrs = {**UNIT_ATTRIBUTES, attribute: kind(unit)}
    with GroupedHDF5(raw(tmp_path / "a.h5", {"3": water(**{field: values})}, **attrs)) as file:
        found = file.groups[0].read(field)
        assert found.dtype == FIELDS[field].dtype
        np.testing.assert_array_equal(found, (values * factor).astype(FIELDS[field].dtype))
        assert file.notes == []


def test_units_scale_only_their_own_fields(tmp_path: Path) -> None:
    attrs = {**UNIT_ATTRIBUTES, "units_energy": "hartree"}
    with GroupedHDF5(raw(tmp_path / "a.h5", {"3": water()}, **attrs)) as file:
        np.testing.assert_array_equal(file.groups[0].read("coord"), water()["coord"])
        np.testing.assert_array_equal(file.groups[0].read("numbers"), water()["numbers"])
        np.testing.assert_array_equal(
            file.groups[0].read("energy"), [units.HARTREE, 2 * units.HARTREE]
        )


def test_missing_units_are_assumed_and_said(tmp_path: Path) -> None:
    path = raw(tmp_path / "a.h5", {"3": water()})
    with GroupedHDF5(path) as file:
        assert file.notes == [f"{path}: no unit attributes, read as eV, angstrom and e"]
        assert file.level_of_theory is None


def test_single_precision_energies_are_said(tmp_path: Path) -> None:
    arrays = water(energy=np.array([1, 2], "float32"))
    with GroupedHDF5(raw(tmp_path / "a.h5", {"3": arrays}, **UNIT_ATTRIBUTES)) as file:
        (note,) = file.notes
        assert "float32" in note
        assert "float64" in note
        assert file.groups[0].read("energy").dtype == np.float64


# --- refusals, each with file, group and molecule


def nan_at(row: int) -> np.ndarray:
    coord = np.array(water()["coord"])
    coord[row, 2, 1] = np.nan
    return coord


def far_at(row: int) -> np.ndarray:
    """Finite as stored, in float64, but beyond float32."""
    coord = np.array(water()["coord"], dtype="float64")
    coord[row] = 1e300
    return coord


@pytest.mark.parametrize(
    ("groups", "place", "rule"),
    [
        ({"003": water(coord=None)}, ", group 003", r"needs 'coord'.*\['energy', 'numbers'\]"),
        ({"003": water(numbers=None)}, ", group 003", "needs 'numbers'"),
        ({"003": {}}, ", group 003", "needs 'coord'.*nothing"),
        ({"004": water()}, ", group 004", r"'coord' must have shape \(2, 4, 3\).*\(2, 3, 3\)"),
        (
            {"003": water(forces=np.zeros((2, 3)))},
            ", group 003",
            r"'forces' must have shape \(2, 3, 3\).*found \(2, 3\)",
        ),
        (
            {"003": water(energy=np.zeros(3))},
            ", group 003",
            r"'energy' must have shape \(2,\).*found \(3,\)",
        ),
        ({"003": water(coord=np.float32(1))}, ", group 003", "'coord' must have shape"),
        ({"003": water(coord=np.array([b"x", b"y"]))}, ", group 003", "'coord' must hold float32"),
        ({"003": water(energy=np.zeros(2, "c16"))}, ", group 003", "'energy' must hold float64"),
        ({"003": water(molecule=np.arange(2))}, ", group 003", "'molecule' must hold str"),
        ({"water": water()}, "", "named by their number of atoms, found 'water'"),
        ({"000": water()}, "", "found '000'"),
        ({"-3": water()}, "", "found '-3'"),
        ({"²": water()}, "", "found '²'"),
        ({}, "", "no molecules"),
        ({"002": {"coord": np.zeros((0, 2, 3)), "numbers": np.zeros((0, 2))}}, "", "no molecules"),
    ],
)
def test_a_broken_layout_is_refused_on_opening(
    tmp_path: Path, groups: dict[str, dict[str, Any]], place: str, rule: str
) -> None:
    path = raw(tmp_path / "a.h5", groups)
    with pytest.raises(DataError, match=rule) as caught:
        GroupedHDF5(path)
    assert caught.value.where == f"{path}{place}"
    assert caught.value.exit_code == 3
    h5py.File(path, "a").close()  # the refusal closed the file: it can be opened for writing


@pytest.mark.parametrize(
    ("change", "row", "rule"),
    [
        ({"coord": nan_at(1)}, 1, "'coord' must be finite, found nan"),
        ({"coord": far_at(0)}, 0, "'coord' must be finite, found inf"),
        ({"numbers": np.array([[8, 1, 1], [8, 0, 1]])}, 1, "1 to 118, found 0"),
        ({"numbers": np.array([[8, 1, 119], [8, 1, 1]])}, 0, "1 to 118, found 119"),
        ({"numbers": np.array([[8, 1, 1], [206, 1, 1]])}, 1, "1 to 118, found 206"),
        ({"numbers": np.array([[8, 1, 1], [-1, 1, 1]])}, 1, "1 to 118, found -1"),
        ({"numbers": np.array([[8, 1, 2**32 + 1], [8, 1, 1]])}, 0, "found 4294967297"),
        ({"numbers": np.array([[8, 1, 1], [8, 1.5, 1]])}, 1, "integers.*found 1.5"),
        ({"numbers": np.array([[8, 1, 1], [8, np.nan, 1]])}, 1, "integers.*found nan"),
        ({"charge": np.array([0, np.nan])}, 1, "'charge' must be finite"),
        ({"mult": np.array([np.inf, 1])}, 0, "'mult' must be finite and not negative, found inf"),
        ({"mult": np.array([1, -2])}, 1, "not negative, found -2"),
    ],
)
def test_impossible_values_are_refused_with_file_group_and_molecule(
    tmp_path: Path, change: dict[str, Any], row: int, rule: str
) -> None:
    path = raw(tmp_path / "a.h5", {"003": water(**change)})
    (name,) = change
    with GroupedHDF5(path) as file:
        group = file.groups[0]
        readers: list[Callable[[], Any]] = [
            file.validate,
            lambda: file.validate(chunk=1),
            lambda: group.read(name),
            lambda: group.read(name, slice(row, None)),
            lambda: group.read(name, np.array([row])),
        ]
        for read in readers:
            with pytest.raises(DataError, match=rule) as caught:
                read()
            assert caught.value.where == f"{path}, group 003, molecule {row}"
            assert caught.value.remedy
        assert len(group.read(name, np.array([1 - row]))) == 1  # the other molecule is fine


def test_missing_labels_are_no_mistake(tmp_path: Path) -> None:
    arrays = water(energy=np.array([np.nan, 1.0]), forces=np.full((2, 3, 3), np.nan))
    with GroupedHDF5(raw(tmp_path / "a.h5", {"003": arrays})) as file:
        file.validate()
        assert np.isnan(file.groups[0].read("forces")).all()


@pytest.mark.parametrize(
    ("attribute", "unit"),
    [
        ("units_energy", "rydberg"),
        ("units_coord", "m"),
        ("units_charges", "C"),
        ("units_forces", "N"),
    ],
)
def test_unknown_units_are_refused_with_the_known_ones(
    tmp_path: Path, attribute: str, unit: str
) -> None:
    path = raw(tmp_path / "a.h5", {"003": water()}, **{attribute: unit})
    with pytest.raises(
        DataError, match=rf"'{attribute}' must be one of .*found '{unit}'"
    ) as caught:
        GroupedHDF5(path)
    assert caught.value.where == str(path)


def test_an_array_in_the_place_of_a_group_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["003"] = np.zeros(3)
    with pytest.raises(DataError, match="'003' must be a group, found an array") as caught:
        GroupedHDF5(path)
    assert caught.value.where == str(path)


def test_a_group_in_the_place_of_an_array_and_dead_links_are_refused(tmp_path: Path) -> None:
    path = raw(tmp_path / "a.h5", {"003": water(energy=None)})
    with h5py.File(path, "a") as file:
        file["003"].create_group("energy")
    with pytest.raises(DataError, match="'energy' must be an array"):
        GroupedHDF5(path)
    with h5py.File(path, "a") as file:
        del file["003/energy"]
        file["004"] = h5py.SoftLink("/nowhere")
    with pytest.raises(DataError, match="'004'"):
        GroupedHDF5(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"absent\.h5: the file does not exist"):
        GroupedHDF5(tmp_path / "absent.h5")


@pytest.mark.parametrize("content", [b"", b"3\n\nH 0 0 0\n", b"\x89HDF\r\n\x1a\n", b"\0" * 5000])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a readable HDF5 file") as caught:
        GroupedHDF5(path)
    assert caught.value.where == str(path)
    assert "mlff convert" in str(caught.value.remedy)
    with pytest.raises(DataError, match="this is a folder") as caught:
        GroupedHDF5(tmp_path)
    assert caught.value.where == str(tmp_path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, shared: Path, share: float) -> None:
    data = shared.read_bytes()
    path = tmp_path / "a.h5"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match="not a readable HDF5 file") as caught:
        GroupedHDF5(path)
    assert caught.value.where == str(path)


def test_a_damaged_chunk_is_refused_with_group_and_field(tmp_path: Path, shared: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(shared.read_bytes())
    with h5py.File(path, "r") as file:
        chunk = file["004/coord"].id.get_chunk_info(0)
    with path.open("r+b") as stream:
        stream.seek(chunk.byte_offset)
        stream.write(os.urandom(chunk.size))
    with GroupedHDF5(path) as file:
        assert len(file.groups[0].read("numbers")) == 50
        with pytest.raises(DataError, match="'coord' cannot be read") as caught:
            file.groups[0].read("coord")
    assert caught.value.where == f"{path}, group 004"
    assert "damaged" in str(caught.value.remedy)
