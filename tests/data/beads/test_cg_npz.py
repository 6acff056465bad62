"""Coarse-grained sets: what was written is read, whatever the chunks; padding is never data."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.data.beads import cg_npz
from mlff_cli.data.beads.cg_npz import BeadMolecule, CGBlock, CGSet, is_cg_npz
from mlff_cli.data.beads.cg_writer import write_cg
from tests.data.cg_sets import SOURCES, block, chain, seed_set

TABLE = ["ALA", "GLY", "PRO"]


def written(path: Path, sizes: tuple[int, ...] = (4,), blocks: Any = None, **how: Any) -> Path:
    molecules = [chain(n, name=f"m{k}", seed=k) for k, n in enumerate(sizes)]
    blocks = blocks or [block(k, n, 5 + k, seed=k) for k, n in enumerate(sizes)]
    write_cg(path, molecules, TABLE, SOURCES, {"mapping": "ca"}, blocks, **how)
    return path


def joined(blocks: list[CGBlock], name: str) -> np.ndarray:
    return np.concatenate([getattr(b, name) for b in blocks])


def same_molecule(a: BeadMolecule, b: BeadMolecule) -> None:
    for field in dataclasses.fields(BeadMolecule):
        x, y = getattr(a, field.name), getattr(b, field.name)
        assert (x is None) == (y is None), field.name
        np.testing.assert_array_equal(x, y, err_msg=field.name)
        assert x is None or isinstance(x, str) or x.dtype == y.dtype


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    pieces=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    forces=st.booleans(),
    chunk=st.integers(1, 2000),
)
def test_a_round_trip_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    pieces: list[int],
    forces: bool,
    chunk: int,
) -> None:
    path = tmp_path_factory.mktemp("cg") / "set.npz"
    given_blocks, start = [], 0
    for p, n_frames in enumerate(pieces):
        k = p % len(sizes)
        given_blocks.append(block(k, sizes[k], n_frames, forces=forces, start=start))
        start += n_frames
    written(path, tuple(sizes), given_blocks)
    with pytest.MonkeyPatch.context() as patch, CGSet(path) as cg:
        patch.setattr(cg_npz, "CHUNK_BYTES", chunk)
        assert (cg.n_frames, cg.n_beads, cg.has_forces) == (start, max(sizes), forces)
        assert cg.species_table == TABLE
        assert cg.sources == SOURCES
        assert cg.metadata["mapping"] == "ca"
        assert not cg.notes
        for k, n in enumerate(sizes):
            same_molecule(cg.molecules[k], chain(n, name=f"m{k}", seed=k))
        found = list(cg.blocks())
        for k in range(len(sizes)):
            mine = [b for b in given_blocks if b.molecule == k]
            read = [b for b in found if b.molecule == k]
            for name in ("R", "source", "frame", "temperature", *("F" if forces else "")):
                if mine:
                    np.testing.assert_array_equal(joined(read, name), joined(mine, name))
        np.testing.assert_array_equal(joined(found, "rows"), np.arange(start))


def test_the_file_is_plain_and_the_same_for_any_pieces(tmp_path: Path) -> None:
    whole = block(0, 4, 9)
    parts = [
        dataclasses.replace(
            whole,
            **{n: getattr(whole, n)[rows] for n in ("R", "F", "source", "frame", "temperature")},
        )
        for rows in (slice(0, 2), slice(2, 9))
    ]
    a, b = written(tmp_path / "a.npz", (4,), [whole]), written(tmp_path / "b.npz", (4,), parts)
    assert a.read_bytes() == b.read_bytes()
    with np.load(a, allow_pickle=False) as plain:
        kinds = {"R": "f4", "F": "f4", "species": "i4", "mask": "f4", "Z": "i4", "source": "i4"}
        kinds |= {"frame": "i8", "temperature": "f4", "molecule": "i4", "mapping": "f8"}
        assert {k: plain[k].dtype.str[1:] for k in kinds} == kinds
        assert plain["R"].shape == (9, 4, 3)
        assert json.loads(str(plain["metadata"]))["units"]["F"] == "kcal/mol/angstrom"
    assert {i.date_time for i in zipfile.ZipFile(a).infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["a.npz", "b.npz"]


def test_our_padding_is_zero_and_behind(tmp_path: Path) -> None:
    with CGSet(written(tmp_path / "a.npz", (2, 5))) as cg:
        frames = cg.frames(slice(None))
        short = cg.per_frame("molecule") == 0
        assert frames.F is not None
        np.testing.assert_array_equal(frames.mask[short].sum(1), 2)
        for values in (frames.R, frames.F, frames.species):
            assert not values[short, 2:].any()


def test_rows_in_any_order(tmp_path: Path) -> None:
    with CGSet(written(tmp_path / "a.npz", (3, 4))) as cg:
        every = cg.frames(slice(None)).R
        rows = np.array([7, 0, 7, 3])
        np.testing.assert_array_equal(cg.frames(rows).R, every[rows])
        np.testing.assert_array_equal(cg.frames(rows).rows, rows)
        assert cg.frames(slice(2, 4), forces=False).F is None
        chosen = list(cg.blocks(np.array([1, 6, 8])))
        assert [b.molecule for b in chosen] == [0, 1]
        np.testing.assert_array_equal(joined(chosen, "rows"), [1, 6, 8])


@pytest.mark.parametrize("parked", [0.0, 95.0, -1e6, np.nan])
def test_a_seeds_padding_is_never_data(tmp_path: Path, parked: float) -> None:
    real = seed_set(tmp_path / "seed.npz", [3, 5, 3, 2, 5], parked=parked)
    assert is_cg_npz(tmp_path / "seed.npz")
    with CGSet(tmp_path / "seed.npz") as cg:
        assert len(cg.molecules) == 0
        assert any("no units" in note for note in cg.notes)
        np.testing.assert_array_equal(cg.per_frame("molecule"), [0, 1, 0, 2, 1])
        assert [len(found.columns) for found in cg.layouts] == [3, 5, 2]
        assert np.isnan(cg.per_frame("temperature")).all()
        np.testing.assert_array_equal(cg.per_frame("frame"), np.arange(5))
        for t, found in enumerate(cg.blocks()):
            columns, R, F = real[t]
            np.testing.assert_array_equal(cg.layouts[found.molecule].columns, columns)
            np.testing.assert_array_equal(found.R[0], R)
            np.testing.assert_array_equal(found.F[0], F)


@pytest.mark.parametrize("chunk", [1, 16 << 20])
def test_a_seeds_molecules_do_not_depend_on_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    sizes = [4, 2, 4, 3, 3, 2, 6]
    seed_set(tmp_path / "seed.npz", sizes)
    monkeypatch.setattr(cg_npz, "CHUNK_BYTES", chunk)
    with CGSet(tmp_path / "seed.npz") as cg:
        np.testing.assert_array_equal(cg.per_frame("molecule"), [0, 1, 0, 2, 2, 1, 3])


def test_compressed_and_fortran_arrays_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    R = np.asfortranarray(rng.normal(size=(6, 4, 3)))
    species = np.ones((6, 4), np.int64)
    np.savez_compressed(tmp_path / "c.npz", R=R, species=species)
    np.savez(tmp_path / "f.npz", R=R, species=species)
    for name in ("c.npz", "f.npz"):
        with CGSet(tmp_path / name) as cg:
            np.testing.assert_array_equal(cg.frames(np.array([5, 1])).R, R[[5, 1]])
            assert cg.frames(slice(None)).mask.all()


def test_unpacked_arrays_lie_on_the_disk_of_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's folder for temporary files is often memory; it is the last resort."""
    R = np.random.default_rng(0).normal(size=(6, 4, 3))
    folder = tmp_path / "data"
    folder.mkdir()
    np.savez_compressed(folder / "c.npz", R=R, species=np.ones((6, 4), np.int64))
    with CGSet(folder / "c.npz") as cg, monkeypatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
        np.testing.assert_array_equal(cg.frames(slice(None)).R, R)
    assert [p.name for p in folder.iterdir()] == ["c.npz"]
    with CGSet(folder / "c.npz") as cg:
        folder.rename(tmp_path / "moved")  # as good as one that is read only
        np.testing.assert_array_equal(cg.frames(slice(None)).R, R)


def damaged(path: Path, **arrays: Any) -> Path:
    good = {"R": np.zeros((2, 3, 3), "f4"), "species": np.zeros((2, 3), "i4")}
    np.savez(path, **{k: v for k, v in {**good, **arrays}.items() if v is not None})
    return path


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"species": None}, "arrays R and species"),
        ({"R": np.zeros((2, 3))}, "shape \\(frames, beads, 3\\)"),
        ({"R": np.zeros((2, 3, 3), "i4")}, "floats"),
        ({"R": np.zeros((0, 3, 3)), "species": np.zeros((0, 3), "i4")}, "frames and beads"),
        ({"F": np.zeros((2, 2, 3))}, "F must have shape"),
        ({"mask": np.zeros(2)}, "mask must have shape"),
        ({"temperature": np.zeros(3)}, "temperature must have one value"),
        ({"metadata": np.array('{"units": {"R": "nm"}}')}, "units must be"),
        ({"metadata": np.array('{"format_version": 9}')}, "format version"),
        ({"metadata": np.array("{")}, "must be JSON"),
        ({"metadata": np.array("[]")}, "must be a JSON dict"),
        ({"sources": np.zeros(3)}, "one string"),
        ({"bead_species": np.zeros(3, "i4")}, "no array name"),
        ({"extra": np.array([{}], dtype=object)}, "pickled"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    path = damaged(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataError, match=message) as error, CGSet(path):
        pass
    assert "bad.npz" in str(error.value)


def test_a_mask_without_beads_is_refused(tmp_path: Path) -> None:
    path = damaged(tmp_path / "bad.npz", mask=np.array([[1, 1, 0], [0, 0, 0]], "f4"))
    with pytest.raises(DataError, match="frame 1: the mask leaves no real bead"), CGSet(path) as cg:
        cg.per_frame("molecule")


def test_truncated_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.npz")
    for n in (0, 10, path.stat().st_size // 2, path.stat().st_size - 5):
        (tmp_path / "cut.npz").write_bytes(path.read_bytes()[:n])
        with pytest.raises(DataError, match="not a readable NPZ"), CGSet(tmp_path / "cut.npz"):
            pass
    with pytest.raises(DataError, match="the file does not exist"), CGSet(tmp_path / "absent.npz"):
        pass


@pytest.mark.parametrize("value", [0.0, -300.0, np.inf])
def test_temperatures_are_above_0_or_unknown(tmp_path: Path, value: float) -> None:
    made = block(0, 3, 4)
    made.temperature[:] = [300, np.nan, 300, value]
    write_cg(tmp_path / "a.npz", [chain(3)], TABLE, SOURCES, {}, [made])
    with (
        CGSet(tmp_path / "a.npz") as cg,
        pytest.raises(DataError, match="frame 3: temperature must be above 0 K"),
    ):
        cg.per_frame("temperature")


@pytest.mark.parametrize("header", [b"{'descr': (", b"if\n 1\n2\n  3"])
def test_a_header_of_nonsense_is_refused(tmp_path: Path, header: bytes) -> None:
    """Numpy parses it as Python: what it raises depends on the nonsense."""
    write_cg(tmp_path / "a.npz", [chain(3)], TABLE, SOURCES, {}, [block(0, 3, 4)])
    raw = bytearray((tmp_path / "a.npz").read_bytes())
    start = raw.index(b"{'descr'")
    end = raw.index(b"\n", start)
    raw[start:end] = header.ljust(end - start)
    (tmp_path / "a.npz").write_bytes(raw)
    with pytest.raises(DataError, match="damaged"):
        CGSet(tmp_path / "a.npz")


def test_a_value_that_is_not_finite_is_named(tmp_path: Path) -> None:
    R = np.zeros((2, 3, 3), "f4")
    R[1, 2, 0] = np.nan
    with CGSet(damaged(tmp_path / "a.npz", R=R)) as cg:
        assert np.isnan(cg.frames(slice(None)).R).any()  # as stored, for who looks for faults
        with pytest.raises(DataError, match="frame 1, bead 2"):
            list(cg.blocks())


@pytest.mark.parametrize("name", ["R", "F"])
def test_a_value_that_no_molecule_has_is_named(tmp_path: Path, name: str) -> None:
    values = np.zeros((2, 3, 3), "f4")
    values[1, 2, 0] = -1e30
    path = damaged(tmp_path / "a.npz", **{"F": np.zeros((2, 3, 3), "f4"), name: values})
    with CGSet(path) as cg, pytest.raises(DataError, match=r"frame 1, bead 2 has .*e\+30") as told:
        list(cg.blocks())
    assert str(path) in str(told.value)


def test_frames_that_contradict_their_molecule_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.npz")
    arrays = dict(np.load(path))
    arrays["species"][3, 1] = 99
    np.savez(path, **arrays)
    with (
        CGSet(path) as cg,
        pytest.raises(DataError, match="species of frame 3, bead 1 is 99, its molecule's table"),
    ):
        list(cg.blocks())


@pytest.mark.parametrize("name", ["R", "F"])
def test_a_flipped_bit_is_found(tmp_path: Path, name: str) -> None:
    """Reading by rows does not see it; `verify` does."""
    path = written(tmp_path / "a.npz", blocks=[block(0, 4, 1000)])  # more than a buffer of zipfile
    with CGSet(path) as cg:
        cg.verify()
        values = cg.frames(slice(None))
    raw = bytearray(path.read_bytes())
    raw[raw.index(getattr(values, name).tobytes()) + 24000] ^= 1
    path.write_bytes(raw)
    with CGSet(path) as cg:
        list(cg.blocks())
        with pytest.raises(DataError, match=f"CRC-32 for file '{name}") as told:
            cg.verify()
    assert str(path) in str(told.value)


BAD_BLOCKS = {
    "finite": dataclasses.replace(block(0, 4, 3), R=np.full((3, 4, 3), np.inf)),
    "must have shape": block(0, 3, 3),
    "all frames have forces or none": block(0, 4, 3, forces=False),
}


@pytest.mark.parametrize("message", BAD_BLOCKS)
def test_a_bad_block_leaves_nothing_behind(tmp_path: Path, message: str) -> None:
    with pytest.raises(DataError, match=message):
        written(tmp_path / "a.npz", (4,), [block(0, 4, 2), BAD_BLOCKS[message]])
    assert not list(tmp_path.iterdir())


def test_nothing_is_no_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs frames"):
        write_cg(tmp_path / "a.npz", [chain(3)], TABLE, SOURCES, {}, [])
    with pytest.raises(DataError, match="needs a molecule"):
        write_cg(tmp_path / "a.npz", [], TABLE, SOURCES, {}, [])
    with pytest.raises(DataError, match="species of molecule 0"):
        write_cg(tmp_path / "a.npz", [chain(9)], ["ALA"], SOURCES, {}, [block(0, 9, 1)])
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="exists"):
        written(written(tmp_path / "a.npz"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"residue": np.zeros(2, np.int32)}, "residue of molecule"),
        ({"mapping": np.eye(3)}, "mapping of molecule"),
        ({"bonds": np.array([[0, 3]])}, "bonds of molecule"),
        ({"atom_bonds": np.array([0, 3])}, "atom_bonds of molecule"),
        ({"atom_index": np.arange(5)}, "atom_index of molecule"),
    ],
)
def test_a_molecule_fits_together(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        dataclasses.replace(chain(3), **change)
