"""The writer: round trips, the same bytes for the same content, all or nothing."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.core.fields import FIELDS, LABELS
from mlff_cli.data.grouped_hdf5 import FORMAT, UNIT_ATTRIBUTES, GroupedHDF5, label_names
from mlff_cli.data.grouped_writer import ROWS_PER_CHUNK, GroupedHDF5Writer, write_grouped
from tests.tiny_disk import run_on_tiny_disk

FAST = settings(max_examples=15, deadline=None)


def molecule(n_atoms: int, seed: int, labels: frozenset[str], tag: int | None) -> dict[str, Any]:
    """A molecule of random values; `tag` makes a name, None leaves charge and name to defaults."""
    rng = np.random.default_rng([n_atoms, seed])
    values: dict[str, Any] = {
        "coord": rng.normal(size=(n_atoms, 3)).astype("float32"),
        "numbers": rng.integers(1, 119, n_atoms).astype("int32"),
    }
    if tag is not None:
        values |= {"charge": float(seed % 3 - 1), "mult": 2.0, "molecule": f"mol-{tag} é"}
    for name in labels:
        values[name] = rng.normal(size=FIELDS[name].shape(n_atoms)).astype(FIELDS[name].dtype)
    return values


Molecules = st.lists(
    st.builds(
        molecule,
        n_atoms=st.sampled_from([1, 2, 3, 17]),
        seed=st.integers(0, 1000),
        labels=st.frozensets(st.sampled_from(LABELS)),
        tag=st.none() | st.integers(0, 5),
    ),
    min_size=1,
    max_size=12,
)
DEFAULT: dict[str, Any] = {"charge": 0.0, "mult": 1.0, "molecule": ""}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- round trips


@FAST
@given(molecules=Molecules)
def test_round_trip_keeps_every_value_and_the_order_of_rows(
    tmp_path_factory: pytest.TempPathFactory, molecules: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("trip") / "a.h5"
    assert write_grouped(path, iter(molecules), {"level_of_theory": "x"}) == len(molecules)
    sizes = sorted({len(m["numbers"]) for m in molecules})
    with GroupedHDF5(path) as file:
        assert [g.n_atoms for g in file.groups] == sizes
        assert file.n_molecules == len(molecules)
        assert file.level_of_theory == "x"
        assert file.notes == []
        assert label_names(file) == tuple(n for n in LABELS if any(n in m for m in molecules))
        file.validate()
        for group in file.groups:
            expected = [m for m in molecules if len(m["numbers"]) == group.n_atoms]
            assert group.n_molecules == len(expected)
            for name, field in FIELDS.items():
                values = group.read(name)
                assert values.shape == (len(expected), *field.shape(group.n_atoms))
                assert values.dtype == (object if field.dtype == "str" else field.dtype)
                for row, m in zip(values, expected, strict=True):
                    np.testing.assert_array_equal(row, m.get(name, DEFAULT.get(name, np.nan)))


def test_rows_keep_their_order_across_chunks_and_mixed_labels(tmp_path: Path) -> None:
    n = 2 * ROWS_PER_CHUNK + 7
    labels = [frozenset[str](), frozenset({"energy"}), frozenset({"energy", "forces"})]
    molecules = [molecule(2 + i % 2, i, labels[i % 3], i) for i in range(n)]
    write_grouped(tmp_path / "a.h5", molecules)
    with GroupedHDF5(tmp_path / "a.h5") as file:
        for group in file.groups:
            expected = [m for m in molecules if len(m["numbers"]) == group.n_atoms]
            assert list(group.read("molecule")) == [m["molecule"] for m in expected]
            energy = [m.get("energy", np.nan) for m in expected]
            np.testing.assert_array_equal(group.read("energy"), energy)


def test_appends_fill_what_earlier_and_later_rows_lack(tmp_path: Path) -> None:
    coord, numbers = np.ones((2, 3, 3)), np.full((2, 3), 6)
    with GroupedHDF5Writer(tmp_path / "a.h5") as writer:
        writer.append(3, {"coord": coord, "numbers": numbers})
        both = {"energy": np.array([1.0, 2.0]), "charge": np.ones(2), "molecule": ["a", "b"]}
        writer.append(3, {"coord": coord, "numbers": numbers, **both})
        writer.append(3, {"coord": coord, "numbers": numbers})
    with GroupedHDF5(tmp_path / "a.h5") as file:
        (group,) = file.groups
        nan = np.nan
        np.testing.assert_array_equal(group.read("energy"), [nan, nan, 1, 2, nan, nan])
        np.testing.assert_array_equal(group.read("charge"), [0, 0, 1, 1, 0, 0])
        np.testing.assert_array_equal(group.read("mult"), np.ones(6))
        assert list(group.read("molecule")) == ["", "", "a", "b", "", ""]
        assert np.isnan(group.read("forces")).all()


def test_a_thousand_atoms_sort_after_nine_hundred(tmp_path: Path) -> None:
    write_grouped(tmp_path / "a.h5", [molecule(n, 0, frozenset(), 0) for n in (1001, 900, 2)])
    with GroupedHDF5(tmp_path / "a.h5") as file:
        assert [(g.name, g.n_atoms) for g in file.groups] == [
            ("002", 2),
            ("900", 900),
            ("1001", 1001),
        ]


def test_energy_keeps_all_its_digits(tmp_path: Path) -> None:
    energy = -1.0e5 - 1.23456789e-7
    write_grouped(tmp_path / "a.h5", [molecule(2, 0, frozenset(), 0) | {"energy": energy}])
    with GroupedHDF5(tmp_path / "a.h5") as file:
        assert file.groups[0].read("energy")[0] == energy


def test_attributes_of_any_length_are_kept(tmp_path: Path) -> None:
    attrs = {"level_of_theory": "pbe/def2-svp", "provenance": {"inputs": {"é" * 100_000: "0"}}}
    write_grouped(tmp_path / "a.h5", [molecule(2, 0, frozenset(), 0)], attrs)
    with GroupedHDF5(tmp_path / "a.h5") as file:
        assert file.attrs["format"] == FORMAT
        assert file.attrs.items() >= UNIT_ATTRIBUTES.items()
        assert "é" * 1000 not in file.attrs["provenance"]  # JSON escapes it
        assert len(file.attrs["provenance"]) > 600_000


# --- the same content, the same bytes

MAKE = """
import sys
import numpy as np
from mlff_cli.data.grouped_writer import write_grouped
rng = np.random.default_rng(0)
def molecules():
    for i in range(600):
        n = int(rng.integers(1, 4))
        m = dict(coord=rng.normal(size=(n, 3)), numbers=rng.integers(1, 9, n), molecule=f"m{i}")
        extra = dict(charge=0, mult=1, energy=float(i), forces=rng.normal(size=(n, 3)))
        yield m | (extra if i % 2 else {})
write_grouped(sys.argv[1], molecules(), {"level_of_theory": "x", "provenance": {"b": 1, "a": 2}})
"""


def test_same_content_gives_same_bytes_under_any_name_seed_and_time(tmp_path: Path) -> None:
    paths = [tmp_path / "a.h5", tmp_path / "folder" / "a-longer-name.hdf5"]
    for seed, path in enumerate(paths):
        environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
        later = f"import time; time.sleep({1.05 * seed})\n"  # HDF5 keeps times in seconds
        subprocess.run([sys.executable, "-c", later + MAKE, str(path)], check=True, env=environment)
    assert digest(paths[0]) == digest(paths[1])


# --- all or nothing


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_in_the_middle_leaves_no_file(tmp_path: Path, error: type[BaseException]) -> None:
    def molecules() -> Any:
        for i in range(2 * ROWS_PER_CHUNK):
            yield molecule(3, i, frozenset({"energy"}), i)
        raise error

    with pytest.raises(error):
        write_grouped(tmp_path / "a.h5", molecules())
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_leaves_no_file_under_the_name(tmp_path: Path) -> None:
    target = tmp_path / "a.h5"
    code = MAKE.replace("range(600)", "range(10**9)").replace(
        "        m = dict", "        if i == 2000: print('ready', flush=True)\n        m = dict"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == []
    write_grouped(target, [molecule(3, 0, frozenset(), 0)])
    assert list(tmp_path.iterdir()) == [target]


FILL_DISK = """
import gc, os, sys
from pathlib import Path
import numpy as np
from mlff_cli.core.errors import StorageError
from mlff_cli.data.grouped_hdf5 import GroupedHDF5
from mlff_cli.data.grouped_writer import write_grouped
folder, n = Path(sys.argv[1]), {n}
rng = np.random.default_rng({n})
def molecules():
    for i in range(n):
        size = int(rng.integers(4, 40))
        yield dict(coord=rng.normal(size=(size, 3)), numbers=np.ones(size, int), energy=1.0 * i)
try:
    write_grouped(folder / "a.h5", molecules())
except StorageError as error:
    print(error.exit_code, error)
gc.collect()
print([p.name for p in folder.iterdir()])
write_grouped(folder / "b.h5", [dict(coord=np.zeros((1, 3)), numbers=[1])])
print(GroupedHDF5(folder / "b.h5").n_molecules)
"""


@pytest.mark.parametrize("n", [300, 2000])  # full at the end; full half way
def test_a_full_disk_is_named_leaves_nothing_and_the_process_lives(tmp_path: Path, n: int) -> None:
    result = run_on_tiny_disk(tmp_path, FILL_DISK.replace("{n}", str(n)), size="128k")
    assert result.stdout.splitlines() == [
        f"3 {tmp_path}/a.h5: the file could not be read or written: No space left on device",
        "  remedy: free some space, or write to another disk",
        "[]",
        "1",
    ]
    assert result.stderr == ""
    assert result.returncode == 0


def test_existing_output_needs_force(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_grouped(path, [molecule(3, 0, frozenset(), 0)])
    before = digest(path)
    with pytest.raises(UsageError, match="exists already"):
        write_grouped(path, [molecule(3, 1, frozenset(), 0)])
    assert digest(path) == before
    write_grouped(path, [molecule(3, 1, frozenset(), 0)], force=True)
    assert digest(path) != before


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"forces": np.zeros((2, 3))}, r"'forces' .*\(3, 3\), found \(2, 3\)"),
        ({"coord": np.zeros((2, 3))}, r"'coord' .*\(3, 3\), found \(2, 3\)"),
        ({"energy": np.zeros(1)}, r"'energy' .*\(\), found \(1,\)"),
    ],
)
def test_the_writer_refuses_wrong_shapes(tmp_path: Path, change: dict[str, Any], rule: str) -> None:
    with pytest.raises(DataError, match=rule):
        write_grouped(tmp_path / "a.h5", [molecule(3, 0, frozenset(), 0) | change])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("n_atoms", "arrays", "rule"),
    [
        (3, {"coord": np.zeros((1, 3, 3))}, "'numbers'"),
        (0, {"coord": np.zeros((1, 0, 3)), "numbers": np.zeros((1, 0))}, "found 0 atoms"),
        (1, {"coord": np.zeros((1, 1, 3)), "numbers": [[1]], "enrgy": [1.0]}, "field 'enrgy'"),
        (1, {"coord": np.zeros((2, 1, 3)), "numbers": [[1]]}, r"\(2, 1\), found \(1, 1\)"),
    ],
)
def test_append_refuses_what_could_not_be_read_again(
    tmp_path: Path, n_atoms: int, arrays: dict[str, Any], rule: str
) -> None:
    with (
        pytest.raises(DataError, match=rule) as caught,
        GroupedHDF5Writer(tmp_path / "a.h5") as writer,
    ):
        writer.append(n_atoms, arrays)
    assert str(tmp_path / "a.h5") in str(caught.value)
    assert list(tmp_path.iterdir()) == []
